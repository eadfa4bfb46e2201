"""Canonical correlation analysis: the cosine of canonical variates, weighed by their correlation.

Hotelling, "Relations Between Two Sets of Variates", Biometrika 1936, with shrinkage of both
covariances. For frozen encoders of images and texts it is a method of ours.
"""

import functools
from collections.abc import Mapping

from asif_jax.methods import rules
from asif_jax.methods.linear import Weights, linear_method
from asif_jax.methods.method import Method, given


def cca(*, shrinkage: float | Mapping[str, float] | None = None) -> Method:
    """Cosine of u = rho A' (x - m_x) and v = rho B' (y - m_y), for canonical directions A and B.

    The covariance of a modality is that of its single embeddings (every caption of an image), the
    covariance between two modalities that of the means over each pair.

    Args:
      shrinkage: how much of the mean variance is added to every variance, one value or modality ->
        value; by default a rule of the number of pairs.

    Returns:
      The method.

    Example:
      >>> import jax
      >>> pairs = {m: jax.random.normal(jax.random.key(0), [9, 4]) for m in ("image", "text")}
      >>> method = cca()
      >>> state = method.fit(pairs)
      >>> left, right = (method.represent(state, pairs[m], m) for m in ("image", "text"))
      >>> method.score(state, left, right).argmax(axis=1).tolist()
      [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """
    return linear_method(
        "cca",
        given(shrinkage=shrinkage),
        shrinkage=functools.partial(rules.chosen, shrinkage, rule=rules.cca_shrinkage),
        weights=Weights(first=1.0, second=1.0),
    )
