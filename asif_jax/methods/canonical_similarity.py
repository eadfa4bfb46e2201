"""Canonical similarity analysis.

Li et al., "CSA: Data-efficient Mapping of Unimodal Features to Multimodal Features", ICLR 2025,
section 4.
"""

import functools
from collections.abc import Mapping

from asif_jax.methods import rules
from asif_jax.methods.linear import Weights, linear_method
from asif_jax.methods.method import Method, given


def csa(
    *,
    dimension: int | None = None,
    shrinkage: float | Mapping[str, float] | None = None,
) -> Method:
    """The first canonical variates, normalized, in an inner product weighed by their correlations.

    The shrinkage is an addition without which the method fails where dimensions exceed pairs.

    Args:
      dimension: how many variates are used; all by default.
      shrinkage: as for `cca`.

    Returns:
      The method.

    Example:
      >>> csa(dimension=100).settings
      {'dimension': 100}
    """
    return linear_method(
        "csa",
        given(dimension=dimension, shrinkage=shrinkage),
        shrinkage=functools.partial(rules.chosen, shrinkage, rule=rules.cca_shrinkage),
        weights=Weights(after=0.5, variates=dimension),
    )
