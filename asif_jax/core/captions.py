"""Pairs with several captions, an addition to the paper, whose pairs have one.

A pair with several captions can be represented by the mean of their embeddings, or by all of them.
Here it is represented by all.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.cosine import normalize
from asif_jax.core.nearest import DEFAULT_MEMORY, inner_products
from asif_jax.core.top_k import top_k

# A product, its square and the block maxima of the selection.
_BYTES_PER_SIMILARITY = 12


@functools.partial(jax.jit, static_argnames=("k", "memory"))
def nearest_pairs(
    embeddings: ArrayLike,
    captions: ArrayLike,
    k: int,
    *,
    live: ArrayLike | None = None,
    memory: int = DEFAULT_MEMORY,
) -> tuple[Array, Array]:
    """The k pairs most similar to each embedding, through all captions of a pair.

    The similarity to a pair is the quadratic mean of the positive similarities to its captions.
    `projection.represent_nearest` makes the relative representation of the result.

    Args:
      embeddings: [..., d] real, of sentences.
      captions: [n, c, d] real, those of each pair; zero vectors fill up the shorter lists.
      k: how many, at most n; static.
      live: [n] bool, false for pairs that must not be found; all live by default.
      memory: bytes for the similarities of the queries that are taken at once; static.

    Returns:
      [..., k] float32 similarities and [..., k] int32 indices of pairs, ascending, as
      `nearest.nearest_anchors` returns them.

    Raises:
      ValueError: shapes that do not fit, or k outside 1..n.

    Example:
      >>> captions = [[[0.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]]]
      >>> nearest_pairs([1.0, 0.0], captions, 1)[1].tolist()
      [1]
    """
    queries, units = normalize(embeddings), normalize(captions)
    present = jnp.any(units != 0.0, axis=-1).astype(queries.dtype)
    return nearest_pairs_in_metric(queries, 0.0, units, present, k, live=live, memory=memory)


@functools.partial(jax.jit, static_argnames=("k", "memory"))
def nearest_pairs_in_metric(
    queries: ArrayLike,
    offsets: ArrayLike,
    captions: ArrayLike,
    scales: ArrayLike,
    k: int,
    *,
    live: ArrayLike | None = None,
    memory: int = DEFAULT_MEMORY,
) -> tuple[Array, Array]:
    """As `nearest_pairs`, by the similarities (<q, a> - offset) * scale to the captions a.

    Args:
      queries: [..., d] real, as for `nearest.nearest_in_metric`.
      offsets: [...] real.
      captions: [n, c, d] float32 or bfloat16.
      scales: [n, c] real, zero where a pair has fewer captions.
      k: how many, at most n; static.
      live: [n] bool, false for pairs that must not be found; all live by default.
      memory: bytes for the similarities of the queries that are taken at once; static.

    Returns:
      [..., k] float32 similarities and [..., k] int32 indices of pairs, ascending.

    Raises:
      ValueError: shapes that do not fit, or k outside 1..n.
    """
    queries, captions, scales = map(jnp.asarray, (queries, captions, scales))
    if captions.ndim != 3 or queries.shape[-1:] != captions.shape[-1:]:
        raise ValueError(
            "embeddings [..., d] and captions [n, c, d] must share d: "
            f"got {queries.shape} and {captions.shape}"
        )
    n, c, d = captions.shape
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the number of pairs: got k={k}, n={n}")
    live = None if live is None else jnp.asarray(live)
    counts = jnp.maximum(jnp.sum(scales != 0.0, axis=-1), 1)
    table = captions.reshape(n * c, d)
    offsets = jnp.broadcast_to(jnp.asarray(offsets, queries.dtype), queries.shape[:-1])

    def find(query: tuple[Array, Array]) -> tuple[Array, Array]:
        row, offset = query
        single = (inner_products(row, table) - offset).reshape(n, c) * scales
        mean = jnp.sum(jnp.maximum(single, 0.0) ** 2, axis=-1) / counts
        # The root has no derivative at zero.
        similarities = jnp.where(mean > 0.0, jnp.sqrt(jnp.where(mean > 0.0, mean, 1.0)), 0.0)
        return top_k(similarities, k, live=live)

    rows = queries.reshape(-1, d), offsets.reshape(-1)
    at_once = max(1, memory // (_BYTES_PER_SIMILARITY * n * c))
    size = min(at_once, max(rows[1].shape[0], 1))
    values, indices = jax.lax.map(find, rows, batch_size=size)
    batch = queries.shape[:-1]
    return values.reshape(*batch, k), indices.reshape(*batch, k)
