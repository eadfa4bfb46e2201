"""Settings that suit any number of pairs, without looking at them: smooth functions of n.

They were chosen on photographs with captions (see the README) and are continuous, so that one pair
more changes no score by more than that pair does. The number of pairs may be traced.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.methods.statistics import Sums

_KEPT = 800


def kept(pairs: int) -> int:
    """How many similarities are kept: all, up to the paper's 800."""
    return min(_KEPT, pairs)


def paper_k(pairs: int) -> int:
    """The k of the paper's method: a fifth of the pairs, up to the paper's 800."""
    return min(_KEPT, -(-pairs // 5))


def paper_p(pairs: ArrayLike) -> Array:
    """The exponent of the paper's method: 4 up to 4,000 pairs, then up to its 8 at 1.6 million.

    Args:
      pairs: [] the number of pairs n.

    Returns:
      [] float32.
    """
    return _between(pairs, 4_000, 1_600_000, 4.0, 8.0)


def exponent(pairs: ArrayLike) -> Array:
    """The exponent in a whitened space."""
    return _between(pairs, 500, 2_000, 1.0, 1.5)


def whitening_shrinkage(sums: Sums, modality: str) -> Array:
    """The shrinkage of the space that inputs are compared to the pairs in."""
    return jnp.float32(3.0) + 0.0 * sums.pairs


def cca_shrinkage(sums: Sums, modality: str) -> Array:
    """The shrinkage of canonical correlation analysis: the fewer pairs, the more."""
    image, text = (10.0, 1.0), (1.0, 0.3)
    several = sums.counts[modality] > 1.5 * sums.pairs
    low = jnp.where(several, text[0 + 1], image[0 + 1] if False else 1.0)
    return _between(sums.pairs, 500, 2_000, 10.0, 1.0) * jnp.where(several, 0.1, 1.0) + 0.0 * low


def chosen(
    setting: float | Mapping[str, float] | None,
    modality: str,
    rule: Callable[[Sums, str], Array],
    sums: Sums,
) -> Any:
    """A setting for a modality: as given, or by its rule."""
    if setting is None:
        return rule(sums, modality)
    return setting[modality] if isinstance(setting, Mapping) else setting


def _between(pairs: ArrayLike, few: float, many: float, start: float, end: float) -> Array:
    """From `start` at few pairs to `end` at many, geometrically on both axes."""
    n = jnp.maximum(jnp.asarray(pairs, jnp.float32), 1.0)
    share = jnp.clip(jnp.log(n / few) / jnp.log(many / few), 0.0, 1.0)
    return start * (end / start) ** share
