"""The k largest similarities of each row, exactly: by blocks and by threshold, without sorting.

ASIF needs the set of the k largest, not their order. Two exact reductions find it:

- Blocks. At most k blocks can hold the k largest entries, and the k blocks with the largest maxima
  do. So only k * block entries are left to look at, whatever the row's length.
- Threshold. Searching the k-th largest value by counting takes a few vectorized passes; a sort, or
  a heap of k = 800, is many times slower on CPUs, and GPUs have no fast top-k of that size.
"""

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
      [..., k] values and [..., k] int32 distinct indices, in no particular order; the set of
      indices is the same on every path and backend. With fewer than k live entries the surplus
      are dead ones, of value -inf, by the lower index.

    Example:
      >>> sorted(top_k(jnp.array([3.0, 1.0, 3.0, 3.0]), 2)[1].tolist())
      [0, 2]
    """
    *batch, n = values.shape
    rows = values.reshape(-1, n)
    indices = _top_k_indices(jax.lax.stop_gradient(rows), k, live)
    kept = _alive(
        jnp.take_along_axis(rows, indices, axis=-1), None if live is None else live[indices]
    )
    return kept.reshape(*batch, k), indices.reshape(*batch, k)


def _top_k_indices(rows: Array, k: int, live: Array | None) -> Array:
    # A float64 row, which needs jax_enable_x64, has no 32-bit keys.
    if rows.dtype != jnp.float32 or rows.shape[-1] <= _SHORT:
        rows = _alive(rows, live)
        tiny = jnp.finfo(rows.dtype).tiny
        return jax.lax.top_k(jnp.where(jnp.abs(rows) < tiny, 0.0, rows), k)[1]
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
    index = start[:, :, None] + jnp.arange(_BLOCK, dtype=_INT)
    here = index >= first[:, :, None]
    members = _alive(members, here if live is None else here & live[index])
    kept = _largest(_ordered_keys(members.reshape(-1, k * _BLOCK)), k)
    return jnp.take_along_axis(index.reshape(-1, k * _BLOCK), kept, axis=1)


def _windows(row: Array, start: Array) -> Array:
    """[k, block] from [n] and [k]."""
    return jax.vmap(lambda s: jax.lax.dynamic_slice(row, (s,), (_BLOCK,)))(start)


def _maxima(rows: Array, live: Array | None) -> Array:
    """Largest live entry of each block, [b, blocks]: the one pass over everything."""
    # [128, 131072] on two cores: 2.5 ms with a minimum, 21 ms with a select before the maximum.
    maxima = _window_maxima(
        rows if live is None else jnp.minimum(rows, jnp.where(live, jnp.inf, -jnp.inf))
    )
    # Non-finite entries show in the maxima, and are rare enough for a second pass.
    bad = jnp.any(jnp.isnan(maxima) | (maxima == jnp.inf))
    return jax.lax.cond(bad, lambda: _window_maxima(_alive(rows, live)), lambda: maxima)


def _window_maxima(rows: Array) -> Array:
    window, missing = (1, _BLOCK), -rows.shape[-1] % _BLOCK
    return jax.lax.reduce_window(
        rows, -jnp.inf, jax.lax.max, window, window, ((0, 0), (0, missing))
    )


def _largest(keys: Array, k: int) -> Array:
    """Indices of the k largest of each row, [b, k] ascending, equals by the lower index."""
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
    logarithms of the two counts finds the tail of a smooth distribution in a few passes; every
    third step halves the interval, which bounds the passes for any other.
    """
    rows, n = keys.shape
    low, high = jnp.min(keys, axis=-1), jnp.max(keys, axis=-1)
    state = low, high, jnp.full(rows, n, _INT), jnp.zeros(rows, _INT), _INT(0)

    def unfinished(state):
        low, high, count_low, _, _ = state
        return jnp.any((count_low != k) & (low < high))

    def narrow(state):
        low, high, count_low, count_high, step = state
        width = high.astype(jnp.uint32) - low.astype(jnp.uint32)
        logs = [jnp.log(jnp.maximum(c, 0.5)) for c in (count_low, _INT(k), count_high)]
        share = jnp.where(step % 3 == 2, 0.5, (logs[0] - logs[1]) / (logs[0] - logs[2]))
        offset = jnp.clip(share, 0.0, 1.0) * width.astype(jnp.float32)
        offset = jnp.clip(offset.astype(jnp.uint32), 1, jnp.maximum(width, 1))
        middle = (low.astype(jnp.uint32) + offset).astype(_INT)
        count = jnp.sum(keys >= middle[:, None], axis=-1, dtype=_INT)
        finished = (count_low == k) | (low >= high)
        raise_low, lower_high = ~finished & (count >= k), ~finished & (count < k)
        return (
            jnp.where(raise_low, middle, low),
            jnp.where(lower_high, middle - 1, high),
            jnp.where(raise_low, count, count_low),
            jnp.where(lower_high, count, count_high),
            step + 1,
        )

    return jax.lax.while_loop(unfinished, narrow, state)[0]
