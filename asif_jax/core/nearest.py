"""The k anchors most similar to each embedding, exactly, within a stated amount of memory.

All similarities of a batch to millions of anchors fill gigabytes. Either the queries are taken a
few at a time, each against all anchors, or, where even few do not fit, the anchors are streamed in
blocks whose k best are merged into the best so far.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.cosine import cosine_similarities
from asif_jax.core.top_k import merge, top_k

DEFAULT_MEMORY = 4 * 2**30

# (rows [b, d], some of the anchors [m, d], the number of the first of them) -> [b, m].
Similarities = Callable[[Array, Array, ArrayLike], Array]

# A similarity of float32 with its share of the block maxima, and what one candidate among the
# k * 16 of each row needs while it is searched.
_BYTES_PER_SIMILARITY = 4.5
_BYTES_PER_CANDIDATE = 24
# Below this a product reads the anchors more often than it is worth.
_FEW_QUERIES = 32
_MANY_QUERIES = 256


def nearest_anchors(
    embeddings: ArrayLike,
    anchors: ArrayLike,
    k: int,
    *,
    live: ArrayLike | None = None,
    normalized: bool = False,
    memory: int = DEFAULT_MEMORY,
) -> tuple[Array, Array]:
    """The k largest cosine similarities of each embedding, ties to the lower anchor.

    Args:
      embeddings: [..., d] real.
      anchors: [n, d] float32 or bfloat16.
      k: how many, at most n; static.
      live: [n] bool, false for anchors that must not be found; all live by default.
      normalized: the anchors are unit vectors already, which saves a copy of them.
      memory: bytes that may be used beside the arguments and the result; static.

    Returns:
      [..., k] float32 similarities and [..., k] int32 anchor indices, ascending. With fewer than k
      live anchors the surplus are dead ones, of similarity -inf. The set does not depend on
      `memory`, except where two similarities differ by rounding alone.

    Raises:
      ValueError: shapes that do not fit, k outside 1..n, or too little memory to hold the k best.

    Example:
      >>> nearest_anchors([0.9, 0.1], jnp.eye(2), 1)[1].tolist()
      [0]
    """
    embeddings, anchors = jnp.asarray(embeddings), jnp.asarray(anchors)
    live = check_nearest(embeddings, anchors, k, live)

    def similarities(rows: Array, part: Array, start: ArrayLike) -> Array:
        return cosine_similarities(rows, part, normalized=normalized)

    return _search(similarities, embeddings, anchors, k, live, memory, copies=not normalized)


def nearest_in_metric(
    queries: ArrayLike,
    offsets: ArrayLike,
    anchors: ArrayLike,
    scales: ArrayLike,
    k: int,
    *,
    live: ArrayLike | None = None,
    memory: int = DEFAULT_MEMORY,
) -> tuple[Array, Array]:
    """The k anchors of the largest similarity s_i = (<q, a_i> - offset) * scale_i.

    The cosine in a whitened space has this form: with M the inverse of the shrunk covariance and m
    the mean, q = M (x - m) / |x - m|_M, offset = <q, m> and scale_i = 1 / |a_i - m|_M. So anchors
    are compared in that space as they are, without a whitened copy of them.

    Args:
      queries: [..., d] real, the vectors q.
      offsets: [...] real.
      anchors: [n, d] float32 or bfloat16.
      scales: [n] real.
      k: how many, at most n; static.
      live: [n] bool, false for anchors that must not be found; all live by default.
      memory: bytes that may be used beside the arguments and the result; static.

    Returns:
      [..., k] float32 similarities and [..., k] int32 indices, as `nearest_anchors` returns them.

    Raises:
      ValueError: shapes that do not fit, k outside 1..n, or too little memory to hold the k best.

    Example:
      >>> nearest_in_metric([1.0, 0.0], 0.5, jnp.eye(2), [2.0, 1.0], 1)[0].tolist()
      [1.0]
    """
    queries, anchors = jnp.asarray(queries), jnp.asarray(anchors)
    live = check_nearest(queries, anchors, k, live)
    scales = jnp.asarray(scales)
    offsets = jnp.broadcast_to(jnp.asarray(offsets, queries.dtype), queries.shape[:-1])

    def similarities(rows: Array, part: Array, start: ArrayLike) -> Array:
        scale = jax.lax.dynamic_slice_in_dim(scales, start, part.shape[0])
        return (inner_products(rows[:, :-1], part) - rows[:, -1:]) * scale

    rows = jnp.concatenate([queries, offsets[..., None]], axis=-1)
    return _search(similarities, rows, anchors, k, live, memory)


def inner_products(rows: Array, anchors: Array) -> Array:
    """[..., n] float32 inner products of rows [..., d] with anchors [n, d], in the anchors' dtype.

    Args:
      rows: [..., d] real; rounded to bfloat16 where the anchors are.
      anchors: [n, d] float32 or bfloat16.

    Returns:
      The products, accumulated in float32.
    """
    return jnp.einsum(
        "...d,nd->...n",
        rows.astype(anchors.dtype),
        anchors,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(anchors.dtype, jnp.float32),
    )


def _search(
    similarities: Similarities,
    embeddings: Array,
    anchors: Array,
    k: int,
    live: Array | None,
    memory: int,
    *,
    copies: bool = False,
) -> tuple[Array, Array]:
    """The k best of similarities that are computed for some rows and some anchors at a time."""
    *batch, d = embeddings.shape
    rows = embeddings.reshape(-1, d)
    if embeddings.shape == (1, d) and anchors.dtype == jnp.bfloat16:
        # XLA's CPU backend multiplies one row in bfloat16 ten times as slowly as two.
        rows = jnp.pad(rows, ((0, 1), (0, 0)))
    n = anchors.shape[0]
    queries, block = _plan(rows.shape, anchors, k, not copies, memory)

    def find(rows: Array) -> tuple[Array, Array]:
        if block < n:
            return _streamed(similarities, rows, anchors, k, live, block)
        return top_k(similarities(rows, anchors, 0), k, live=live)

    values, indices = _in_chunks(find, rows, queries)
    count = math.prod(batch)
    return values[:count].reshape(*batch, k), indices[:count].reshape(*batch, k)


def check_nearest(
    embeddings: Array, anchors: Array, k: int, live: ArrayLike | None
) -> Array | None:
    """Refuses arguments of `nearest_anchors` that do not fit each other.

    Args:
      embeddings: [..., d].
      anchors: [n, d].
      k: 1..n.
      live: [n] bool, or None.

    Returns:
      `live` as an array, or None.

    Raises:
      ValueError: one of these does not hold.
    """
    if embeddings.ndim < 1 or anchors.ndim != 2 or embeddings.shape[-1] != anchors.shape[-1]:
        raise ValueError(
            "embeddings [..., d] and anchors [n, d] must share d: "
            f"got embeddings {embeddings.shape} and anchors {anchors.shape}"
        )
    n = anchors.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the number of anchors: got k={k}, n={n}")
    if live is None:
        return None
    live = jnp.asarray(live)
    if live.shape != (n,) or live.dtype != jnp.bool_:
        raise ValueError(f"live must be [{n}] bool: got {live.shape} {live.dtype}")
    return live


def _plan(
    shape: tuple[int, ...], anchors: Array, k: int, normalized: bool, memory: int
) -> tuple[int, int]:
    """How many queries to take at once, and how many anchors."""
    b, (n, d) = max(shape[0], 1), anchors.shape
    search = _BYTES_PER_CANDIDATE * min(16 * k, n)
    # Anchors to be normalized are copied in float32 first.
    fixed = 0 if normalized else n * d * (4 + anchors.dtype.itemsize)
    at_once = int((memory - fixed) // (_BYTES_PER_SIMILARITY * n + search))
    if at_once >= min(b, _FEW_QUERIES):
        chunks = -(-b // at_once)
        return -(-b // chunks), n
    queries = min(b, _MANY_QUERIES)
    # A block is copied, then perhaps converted and normalized; the best so far and the merge take
    # three more rows of k.
    per_anchor = _BYTES_PER_SIMILARITY * queries + d * (12 if normalized else 16)
    room = memory - queries * (search + 3 * _BYTES_PER_CANDIDATE * k)
    block = int(room // per_anchor)
    if block < k:
        needed = memory - room + k * per_anchor
        raise ValueError(
            f"memory={memory} bytes cannot hold the k={k} best of embeddings {shape} among "
            f"anchors {anchors.shape}: at least {int(needed) + 1} are needed"
        )
    return queries, min(block, n)


def _in_chunks(find, rows: Array, size: int) -> tuple[Array, Array]:
    """Applies `find` to [size, d] queries at a time, one chunk after another."""
    b, d = rows.shape
    if b <= size:
        return find(rows)
    chunks = -(-b // size)
    padded = jnp.pad(rows, ((0, chunks * size - b), (0, 0))).reshape(chunks, size, d)
    found = jax.lax.map(find, padded)
    return jax.tree.map(lambda array: array.reshape(chunks * size, -1)[:b], found)


def _streamed(
    similarities: Similarities,
    rows: Array,
    anchors: Array,
    k: int,
    live: Array | None,
    block: int,
) -> tuple[Array, Array]:
    n = anchors.shape[0]

    def best_of(start: ArrayLike, size: int) -> tuple[Array, Array]:
        part = slice_rows(anchors, start, size)
        part_live = None if live is None else jax.lax.dynamic_slice_in_dim(live, start, size)
        found = similarities(rows, part, start)
        values, indices = top_k(found, min(k, size), live=part_live)
        return values, indices + jnp.int32(start)

    def improve(best, more):
        # Ascending stays ascending, since blocks come in order.
        values, indices = (jnp.concatenate(pair, axis=-1) for pair in zip(best, more, strict=True))
        return merge(values, indices, k)

    starts = block * jnp.arange(1, n // block, dtype=jnp.int32)
    best, _ = jax.lax.scan(
        lambda best, start: (improve(best, best_of(start, block)), None),
        best_of(0, block),
        starts,
    )
    return improve(best, best_of(n - n % block, n % block)) if n % block else best


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def slice_rows(array: Array, start: ArrayLike, size: int) -> Array:
    """The rows start..start+size, cut out before anything else is done with any of them.

    Args:
      array: [n, ...].
      start: an integer scalar, traced.
      size: how many rows; static.

    Returns:
      [size, ...].

    Example:
      >>> slice_rows(jnp.arange(5), 2, 2).tolist()
      [2, 3]
    """
    # XLA's CPU backend would convert all of a bfloat16 array, and does not know it from its bits.
    narrow = array.dtype == jnp.bfloat16
    bits = jax.lax.bitcast_convert_type(array, jnp.uint16) if narrow else array
    # Without the barrier XLA normalizes all rows ahead of a loop.
    bits, start = jax.lax.optimization_barrier((bits, start))
    part = jax.lax.dynamic_slice_in_dim(bits, start, size)
    return jax.lax.bitcast_convert_type(part, array.dtype) if narrow else part


@slice_rows.defjvp
def _(size: int, primals, tangents):
    array, start = primals
    return slice_rows(array, start, size), jax.lax.dynamic_slice_in_dim(tangents[0], start, size)
