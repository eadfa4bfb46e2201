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
from asif_jax.core.cosine import normalize
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
        return map_rows(lambda part: square_root(part, rooted[modality]).astype(array.dtype), array)

    embeddings = {m: root(m, array) for m, array in anchors.embeddings.items()}
    return anchors._replace(embeddings=embeddings)


@jax.jit
def square_root(embeddings: Array, rooted: Array) -> Array:
    """unit(sqrt(x)) of embeddings [..., d], or the embeddings as they are."""
    positive = jnp.maximum(embeddings, 0).astype(jnp.promote_types(embeddings.dtype, jnp.float32))
    # The root has no derivative at zero.
    above = positive > 0.0
    roots = jnp.where(above, jnp.sqrt(jnp.where(above, positive, 1.0)), 0.0)
    return jnp.where(rooted, normalize(roots), embeddings)
