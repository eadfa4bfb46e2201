"""The square root of non-negative features before anything else is done with them.

Arandjelovic and Zisserman, "Three Things Everyone Should Know to Improve Object Retrieval", CVPR
2012: the cosine of square roots is the Hellinger affinity, and no single large feature rules it.
Features after a rectifier, averaged over an image, gain by it; signed embeddings are left alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.anchors import Anchors, as_anchors
from asif_jax.core.explanation import Explanation
from asif_jax.methods.blocks import map_rows
from asif_jax.methods.method import Method, Pairs
from asif_jax.methods.statistics import Sums, count_negatives


class RootState(NamedTuple):
    """Which modalities are square rooted, and the state of the method that follows.

    Attributes:
      rooted: modality -> [] bool.
      state: of the method.
    """

    rooted: Mapping[str, Array]
    state: Any


def with_square_root(method: Method) -> Method:
    """A method that sees the square roots of non-negative embeddings.

    A modality counts as non-negative if no live pair has a negative entry in it.

    Args:
      method: what follows.

    Returns:
      The method. Its sums are those over the square roots, with the negatives before them.

    Example:
      >>> from asif_jax.methods.canonical_correlations import cca
      >>> with_square_root(cca()).name
      'with_square_root'
    """

    def rooted_by(anchors: Anchors, sums: Sums | None) -> dict[str, Array]:
        negatives = count_negatives(anchors) if sums is None else sums.negatives
        return {modality: count == 0 for modality, count in negatives.items()}

    def measure(pairs: Pairs, like: Sums | None = None) -> Sums | None:
        anchors = as_anchors(pairs)
        sums = method.measure(square_rooted(anchors, rooted_by(anchors, like)), like)
        return sums and sums._replace(negatives=count_negatives(anchors))

    def fit(pairs: Pairs, sums: Sums | None = None) -> RootState:
        anchors = as_anchors(pairs)
        rooted = rooted_by(anchors, sums)
        return RootState(rooted, method.fit(square_rooted(anchors, rooted), sums))

    def represent(state: RootState, embeddings: ArrayLike, modality: str) -> Any:
        rooted = square_root(jnp.asarray(embeddings), state.rooted[modality])
        return method.represent(state.state, rooted, modality)

    def score(state: RootState, left: Any, right: Any) -> Array:
        return method.score(state.state, left, right)

    def explain(state: RootState, left: Any, right: Any) -> Explanation:
        return method.explain(state.state, left, right)

    settings = {"method": [method.name, dict(method.settings)]}
    return Method(fit, represent, score, explain, measure, "with_square_root", settings)


@jax.jit
def square_rooted(anchors: Anchors, rooted: Mapping[str, Array]) -> Anchors:
    """The square roots of the embeddings of some modalities.

    Args:
      anchors: the pairs.
      rooted: modality -> [] bool.

    Returns:
      The pairs, still of unit length.
    """

    def root(modality: str, array: Array) -> Array:
        # These are unit vectors, and taken some at a time there is no float32 copy of all.
        sums = map_rows(lambda part: jnp.sum(_positive(part), axis=-1, keepdims=True), array)
        roots = _roots_of_shares(_positive(array) / jnp.where(sums > 0.0, sums, 1.0))
        return jnp.where(rooted[modality], roots.astype(array.dtype), array)

    embeddings = {m: root(m, array) for m, array in anchors.embeddings.items()}
    return anchors._replace(embeddings=embeddings)


@jax.jit
def square_root(embeddings: Array, rooted: Array) -> Array:
    """unit(sqrt(x)) of embeddings [..., d], or the embeddings as they are."""
    positive = _positive(embeddings)
    # Dividing by the largest first keeps the sum from over- and underflowing.
    largest = jax.lax.stop_gradient(jnp.max(positive, axis=-1, keepdims=True, initial=0.0))
    parts = positive / jnp.where(largest > 0.0, largest, 1.0)
    sums = jnp.sum(parts, axis=-1, keepdims=True)
    roots = _roots_of_shares(parts / jnp.where(sums > 0.0, sums, 1.0))
    return jnp.where(rooted, roots, embeddings)


def _positive(embeddings: Array) -> Array:
    return jnp.maximum(embeddings, 0).astype(jnp.promote_types(embeddings.dtype, jnp.float32))


def _roots_of_shares(shares: Array) -> Array:
    """Square roots of what adds up to 1 or to 0, which are of unit length or zero."""
    # The root has no derivative at zero. The negation lets NaN through.
    above = ~(shares <= 0.0)
    return jnp.where(above, jnp.sqrt(jnp.where(above, shares, 1.0)), 0.0)
