"""Unit vectors and their cosine similarities."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


@jax.jit
def normalize(vectors: ArrayLike) -> Array:
    """Scales vectors to unit length; a zero vector stays zero.

    Args:
      vectors: [..., d] real.

    Returns:
      [..., d] float32 (float64 for float64 input) of unit Euclidean norm over the last axis. A row
      with a non-finite entry becomes NaN, that row only.

    Example:
      >>> normalize([[3.0, 4.0], [0.0, 0.0]]).tolist()
      [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    vectors = jnp.asarray(vectors)
    vectors = vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32))
    # Dividing by the largest entry first keeps the squares from over- and underflowing.
    largest = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True, initial=0.0)
    # The negation lets NaN through, so that a bad row stays visibly bad.
    nonzero = ~(largest < jnp.finfo(vectors.dtype).tiny)
    scaled = vectors / jnp.where(nonzero, jax.lax.stop_gradient(largest), 1.0)
    squared_norm = jnp.sum(jnp.where(nonzero, scaled, 1.0) ** 2, axis=-1, keepdims=True)
    return jnp.where(nonzero, scaled * jax.lax.rsqrt(squared_norm), 0.0)


def cosine_similarities(
    embeddings: ArrayLike, anchors: ArrayLike, *, normalized: bool = False
) -> Array:
    """Cosine similarity of every embedding to every anchor: the dense relative representation.

    Args:
      embeddings: [..., d] real.
      anchors: [n, d] real; in bfloat16 the embeddings are rounded to bfloat16 too and the products
        accumulate in float32.
      normalized: the anchors are unit vectors already, which saves a pass over them.

    Returns:
      [..., n] float32 similarities, s_i = <x, a_i> / (|x| |a_i|). Zero vectors have similarity 0.

    Raises:
      ValueError: the dimensions of embeddings and anchors differ.

    Example:
      >>> cosine_similarities([3.0, 0.0], [[1.0, 0.0], [0.0, 2.0]]).tolist()
      [1.0, 0.0]
    """
    embeddings, anchors = jnp.asarray(embeddings), jnp.asarray(anchors)
    if embeddings.ndim < 1 or anchors.ndim != 2 or embeddings.shape[-1] != anchors.shape[-1]:
        raise ValueError(
            "embeddings [..., d] and anchors [n, d] must share d: "
            f"got embeddings {embeddings.shape} and anchors {anchors.shape}"
        )
    anchors = anchors if normalized else normalize(anchors).astype(_floating(anchors))
    return jnp.einsum(
        "...d,nd->...n",
        normalize(embeddings).astype(anchors.dtype),
        anchors,
        # float32 means float32 on accelerators too; bfloat16 anchors are the way to ask for speed.
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(anchors.dtype, jnp.float32),
    )


def _floating(array: Array) -> jnp.dtype:
    return array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else jnp.dtype(jnp.float32)
