"""The k largest similarities of each row, exactly: by blocks and by threshold, without sorting.

ASIF needs the set of the k largest, not their order. Two exact reductions find it:

- Blocks. At most k blocks can hold the k largest entries, and the k blocks with the largest maxima
  do. So only k * block entries are left to look at, whatever the row's length.
- Threshold. Searching the k-th largest value by counting takes a few vectorized passes; a sort, or
  a heap of k = 800, is many times slower on CPUs, and GPUs have no fast top-k of that size.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

_BLOCK = 16
_WORD = 32
_SHORT = 1024
_INT = jnp.int32


def top_k(values: Array, k: int, *, live: Array | None = None) -> tuple[Array, Array]:
    """The k largest live entries of each row, equals by the lower index.

    Args:
      values: [..., n] float. NaN and infinite entries count as dead.
      k: at most n; static.
      live: [n] bool, false for entries that must not be selected; all live by default.

    Returns:
      [..., k] values and [..., k] int32 indices, ascending in index, and the same on every path
      and backend. With fewer than k live entries the surplus are dead ones, of value -inf, by the
      lower index.

    Example:
      >>> top_k(jnp.array([3.0, 1.0, 3.0, 3.0]), 2)[1].tolist()
      [0, 2]
    """
    *batch, n = values.shape
    if k == n:
        return _alive(values, live), jnp.broadcast_to(jnp.arange(n, dtype=_INT), values.shape)
    rows = values.reshape(-1, n)
    indices = _top_k_indices(jax.lax.stop_gradient(rows), k, live)
    kept = jnp.take_along_axis(rows, indices, axis=-1)
    kept = _alive(kept, None if live is None else live[indices])
    return kept.reshape(*batch, k), indices.reshape(*batch, k)


def merge(values: Array, indices: Array, k: int) -> tuple[Array, Array]:
    """The k best of candidates that were selected from several parts.

    Args:
      values: [..., m] float, -inf for dead candidates.
      indices: [..., m] int32, ascending.
      k: at most m; static.

    Returns:
      [..., k] values and [..., k] int32 indices, as `top_k` of all the parts together would give
      if every part contributed its k best.

    Example:
      >>> merge(jnp.array([2.0, 1.0, 3.0]), jnp.array([4, 7, 9]), 2)[1].tolist()
      [4, 9]
    """
    kept, slots = top_k(values, k)
    return kept, jnp.take_along_axis(indices, slots, axis=-1)


def _top_k_indices(rows: Array, k: int, live: Array | None) -> Array:
    # A float64 row, which needs jax_enable_x64, has no 32-bit keys.
    if rows.dtype != jnp.float32 or rows.shape[-1] <= _SHORT:
        rows = _alive(rows, live)
        tiny = jnp.finfo(rows.dtype).tiny
        return jnp.sort(jax.lax.top_k(jnp.where(jnp.abs(rows) < tiny, 0.0, rows), k)[1], axis=-1)
    return _by_blocks(rows, k, live)


def _alive(values: Array, live: Array | None) -> Array:
    """Sets dead entries to -inf; `live` broadcasts against the values."""
    finite = jnp.isfinite(values)
    return jnp.where(finite if live is None else finite & live, values, -jnp.inf)


def _ordered_keys(values: Array) -> Array:
    """int32 that order as the floats do, with -0.0 and denormals equal to 0.0."""
    bits = jax.lax.bitcast_convert_type(values, _INT)
    # Some processors take denormals for zero; then all shall, whichever path compares them.
    bits = jnp.where((bits & _INT(0x7FFFFFFF)) < _INT(0x00800000), 0, bits)
    return bits ^ ((bits >> 31) & _INT(0x7FFFFFFF))


def _by_blocks(rows: Array, k: int, live: Array | None = None) -> Array:
    """Indices of the k largest of each row, [b, k] ascending, looking closely at k blocks only."""
    n = rows.shape[-1]
    if n <= 2 * k * _BLOCK:
        return _largest(_ordered_keys(_alive(rows, live)), k)
    first = _BLOCK * _by_blocks(_maxima(rows, live), k)
    # The last block may reach beyond the end; it is then read from further left.
    start = jnp.minimum(first, n - _BLOCK)
    members = jax.vmap(_windows)(rows, start)
    dead = None if live is None else ~_windows(live, start.reshape(-1)).reshape(members.shape)
    if n % _BLOCK:
        outside = jnp.arange(_BLOCK) < (first - start)[:, :, None]
        dead = outside if dead is None else outside | dead
    members = _alive(members, None if dead is None else ~dead)
    kept = _largest(_ordered_keys(members.reshape(-1, k * _BLOCK)), k)
    return jnp.take_along_axis(start, kept // _BLOCK, axis=-1) + kept % _BLOCK


def _windows(row: Array, start: Array) -> Array:
    """[k, block] from [n] and [k]."""
    return jax.vmap(lambda s: jax.lax.dynamic_slice(row, (s,), (_BLOCK,)))(start)


def _maxima(rows: Array, live: Array | None) -> Array:
    """Largest live entry of each block, [b, blocks]: the one pass over everything."""
    n = rows.shape[-1]
    full = n - n % _BLOCK

    def members(part: slice) -> Array:
        return _alive(rows[:, part], None if live is None else live[part])

    # Maxima over strided slices run as one loop without a copy; a select before a reduction does
    # not: 6 against 50 ms for [32, 1572864] on two cores.
    maxima = functools.reduce(
        jnp.maximum, [members(slice(first, full, _BLOCK)) for first in range(_BLOCK)]
    )
    if full == n:
        return maxima
    return jnp.concatenate([maxima, members(slice(full, n)).max(axis=-1, keepdims=True)], axis=-1)


def _largest(keys: Array, k: int) -> Array:
    """Indices of the k largest of each row, [b, k] ascending, equals by the lower index."""
    # Stored once, not computed again by each pass over them.
    keys = jax.lax.optimization_barrier(keys)
    threshold = _kth_largest(keys, k)[:, None, None]
    missing = -keys.shape[-1] % _WORD
    words = jnp.pad(keys, ((0, 0), (0, missing)), constant_values=jnp.iinfo(_INT).min)
    words = words.reshape(keys.shape[0], -1, _WORD)
    above, equal = _bits(words > threshold), _bits(words == threshold)
    # Of the equal ones the first are kept, until there are k.
    counts = jnp.stack([_count(above), _count(equal)])
    room = k - jnp.sum(counts[0], axis=-1, keepdims=True)
    kept = above | _first_bits(equal, room - (jnp.cumsum(counts[1], axis=-1) - counts[1]))
    # Slot j of the result lies in the first word that ends beyond j.
    end = jnp.cumsum(_count(kept), axis=-1)
    slots = jnp.arange(k, dtype=_INT)
    word = jax.vmap(lambda ends: jnp.searchsorted(ends, slots, side="right"))(end)
    kept = jnp.take_along_axis(kept, word, axis=-1)
    rank = slots - (jnp.take_along_axis(end, word, axis=-1) - _count(kept))
    return (word * _WORD + _position_of_bit(kept, rank)).astype(_INT)


def _bits(flags: Array) -> Array:
    """[..., 32] bool to [...] uint32, the first flag in the lowest bit."""
    weights = jnp.uint32(1) << jnp.arange(_WORD, dtype=jnp.uint32)
    return jnp.sum(jnp.where(flags, weights, jnp.uint32(0)), axis=-1, dtype=jnp.uint32)


def _count(words: Array) -> Array:
    return jax.lax.population_count(words).astype(_INT)


def _first_bits(words: Array, count: Array) -> Array:
    """Clears all set bits of each word but the lowest `count`."""
    position = _position_of_bit(words, jnp.clip(count, 0, _WORD - 1))
    below = (jnp.uint32(1) << position.astype(jnp.uint32)) - jnp.uint32(1)
    return jnp.where(count >= _count(words), words, words & below)


def _position_of_bit(words: Array, rank: Array) -> Array:
    """Position of the set bit that has `rank` set bits below it, by bisection."""
    position = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        low = _count(words & jnp.uint32((1 << width) - 1))
        higher = rank >= low
        rank = jnp.where(higher, rank - low, rank)
        words = jnp.where(higher, words >> width, words)
        position = position + jnp.where(higher, width, 0)
    return position


def _kth_largest(keys: Array, k: int) -> Array:
    """A threshold for each row, [b]: at least k keys reach it, fewer than k exceed it or exactly k.

    Invariant: `low` is reached by at least k keys, `high + 1` by fewer. Interpolating between the
    logarithms of the two counts brackets the tail of a smooth distribution in a few passes; every
    fourth pass cuts the interval of keys in three, which bounds the passes for any other.
    """
    low, high = _bounds(keys, k)
    state = low, high, _counts(keys, low, low)[0], jnp.zeros_like(low), _INT(1)

    def unfinished(state):
        low, high, count_low, _, _ = state
        return jnp.any((count_low != k) & (low < high))

    def narrow(state):
        low, high, count_low, count_high, step = state
        thirds, between = _thirds(low, high), _interpolate(low, high, count_low, count_high, k)
        cut = step % 4 == 3
        probes = [jnp.where(cut, *pair) for pair in zip(thirds, between, strict=True)]
        for probe, count in zip(probes, _counts(keys, *probes), strict=True):
            inside = (low < probe) & (probe <= high) & (count_low != k)
            raised, lowered = inside & (count >= k), inside & (count < k)
            low, count_low = jnp.where(raised, probe, low), jnp.where(raised, count, count_low)
            high = jnp.where(lowered, probe - 1, high)
            count_high = jnp.where(lowered, count, count_high)
        return low, high, count_low, count_high, step + 1

    return jax.lax.while_loop(unfinished, narrow, state)[0]


def _bounds(keys: Array, k: int) -> tuple[Array, Array]:
    """Bounds of the k-th largest: the least of the maxima of k groups of keys, and the maximum."""
    size = keys.shape[-1] // k
    maxima = functools.reduce(
        jnp.maximum, [keys[:, first : size * k : size] for first in range(size)]
    )
    high = jnp.max(keys[:, size * k :], axis=-1, initial=jnp.iinfo(_INT).min)
    return jnp.min(maxima, axis=-1), jnp.maximum(high, jnp.max(maxima, axis=-1))


def _counts(keys: Array, *thresholds: Array) -> tuple[Array, ...]:
    """How many keys of each row reach each threshold, in one pass."""
    reached = [(keys >= threshold[:, None]).astype(_INT) for threshold in thresholds]
    zeros = [_INT(0)] * len(reached)
    # One reduction of a pair runs twice as fast as two reductions, or even as one of them.
    return jax.lax.reduce(reached, zeros, functools.partial(jax.tree.map, jnp.add), (1,))


def _thirds(low: Array, high: Array) -> tuple[Array, Array]:
    start = low.astype(jnp.uint32)
    third = jnp.maximum((high.astype(jnp.uint32) - start) // 3, 1)
    return (start + third).astype(_INT), (start + 2 * third).astype(_INT)


def _interpolate(
    low: Array, high: Array, count_low: Array, count_high: Array, k: int
) -> tuple[Array, Array]:
    """Two keys in the interval that about k, some more and some less, should reach."""
    margin = (count_low - count_high) / 8
    log_low, log_high = (jnp.log(jnp.maximum(c, 0.5)) for c in (count_low, count_high))
    smallest, largest = (_float_of_key(key) for key in (low, high))

    def key_reached_by(count: Array) -> Array:
        share = (log_low - jnp.log(jnp.clip(count, 0.5, count_low))) / (log_low - log_high)
        share = jnp.clip(share, 0.0, 1.0)
        value = (1.0 - share) * smallest + share * largest
        return jnp.clip(_ordered_keys(value), low + 1, high)

    return key_reached_by(k + margin), key_reached_by(k - margin)


def _float_of_key(key: Array) -> Array:
    """The finite float32 of this order."""
    value = jax.lax.bitcast_convert_type(key ^ ((key >> 31) & _INT(0x7FFFFFFF)), jnp.float32)
    return jnp.maximum(value, jnp.finfo(jnp.float32).min)
