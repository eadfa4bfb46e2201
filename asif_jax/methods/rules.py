"""Settings that suit any number of pairs, without looking at them: smooth functions of n.

They were chosen on photographs with one to five captions each, 100 to 5,000 pairs (see the README),
and are continuous, so that one pair more changes no score by more than that pair does. The number
of pairs may be traced.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.methods.statistics import Sums

_MOST_KEPT = 800


def kept(pairs: int) -> int:
    """How many similarities are kept in a whitened space: all, up to the paper's 800.

    Args:
      pairs: the number of pairs, or of slots.

    Returns:
      k.
    """
    return min(_MOST_KEPT, pairs)


def exponent(pairs: ArrayLike) -> Array:
    """The exponent in a whitened space: 1 up to 500 pairs, then 1 + log10(n / 500), at most 2.

    Few pairs must all be heard. Many can leave a query to those that resemble it most, which is
    what carries over to images of another kind.

    Args:
      pairs: [] the number of pairs n.

    Returns:
      [] float32.
    """
    n = jnp.maximum(jnp.asarray(pairs, jnp.float32), 1.0)
    return jnp.clip(1.0 + jnp.log10(n / 500.0), 1.0, 2.0)


def whitening_shrinkage(sums: Sums, modality: str) -> Array:
    """The shrinkage of the space that inputs are compared to the pairs in: at least 1.

    It is the root of that of the canonical correlations where this is larger: where pairs are few.

    Args:
      sums: over the pairs.
      modality: its name.

    Returns:
      [] float32, in mean variances.
    """
    return jnp.maximum(jnp.sqrt(cca_shrinkage(sums, modality)), 1.0)


def cca_shrinkage(sums: Sums, modality: str) -> Array:
    """The shrinkage of canonical correlations: 4 d / (n sqrt(c)), for c embeddings in each pair.

    So four times the total variance, over n sqrt(c), is added to the variance of every direction.

    Args:
      sums: over the pairs.
      modality: its name.

    Returns:
      [] float32, in mean variances.
    """
    pairs = jnp.maximum(sums.pairs, 1.0)
    captions = jnp.maximum(sums.counts[modality] / pairs, 1.0)
    return 4.0 * sums.totals[modality].shape[0] / (pairs * jnp.sqrt(captions))


def paper_k(pairs: int) -> int:
    """The k of the paper's method: a fifth of the pairs, up to the paper's 800.

    Args:
      pairs: the number of pairs, or of slots.

    Returns:
      k.
    """
    return min(_MOST_KEPT, -(-pairs // 5))


def paper_p(pairs: ArrayLike) -> Array:
    """The exponent of the paper's method: 4 up to 4,000 pairs, then up to its 8 at 1.6 million.

    Args:
      pairs: [] the number of pairs n.

    Returns:
      [] float32.
    """
    n = jnp.maximum(jnp.asarray(pairs, jnp.float32), 1.0)
    share = jnp.clip(jnp.log(n / 4_000.0) / jnp.log(400.0), 0.0, 1.0)
    return 4.0 * 2.0**share


def chosen(
    setting: float | Mapping[str, float] | None,
    sums: Sums,
    modality: str,
    rule: Callable[[Sums, str], Array],
) -> Any:
    """A setting of a modality: as given, or by its rule.

    Args:
      setting: one value for all modalities, modality -> value, or None.
      sums: over the pairs, for the rule.
      modality: its name.
      rule: of what is not given.

    Returns:
      The value.
    """
    if setting is None:
        return rule(sums, modality)
    return setting[modality] if isinstance(setting, Mapping) else setting
