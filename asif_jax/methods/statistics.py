"""Sums over the pairs of a model: all that whitening and the linear methods need of them.

They are sums, so pairs come and go exactly: what is added is added, what is removed is subtracted.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from asif_jax.core.anchors import Anchors, as_anchors
from asif_jax.core.nearest import slice_rows
from asif_jax.methods.blocks import ROWS, product, sum_of_outers

Pairs = Anchors | Mapping[str, Any]


class Sums(NamedTuple):
    """Sums over the live pairs, of unit vectors.

    A pair with several embeddings in a modality (the captions of an image) counts with each of
    them in `totals` and `outers`, and with their mean in `means` and `crosses`.

    Attributes:
      pairs: [] float32, the number of live pairs.
      counts: modality -> [] float32, the number of embeddings.
      totals: modality -> [d] float32, the sum of the embeddings.
      outers: modality -> [d, d] float32, the sum of their outer products.
      means: modality -> [d] float32, the sum over pairs of the mean embedding of each.
      negatives: modality -> [] float32, the number of embeddings with a negative entry.
      crosses: modality -> later modality -> [d, e] float32, the sum over pairs of the outer
        products of both means. Modalities are ordered by name.
    """

    pairs: Array
    counts: Mapping[str, Array]
    totals: Mapping[str, Array]
    outers: Mapping[str, Array]
    means: Mapping[str, Array]
    negatives: Mapping[str, Array]
    crosses: Mapping[str, Mapping[str, Array]]


class Moments(NamedTuple):
    """Mean and covariance of the embeddings of one modality.

    Attributes:
      mean: [d] float32.
      covariance: [d, d] float32.
    """

    mean: Array
    covariance: Array


@jax.jit
def measure(pairs: Pairs, like: Sums | None = None) -> Sums:
    """Sums over the live pairs, in one pass that takes 8,192 of them at a time.

    Args:
      pairs: `Anchors`, or modality -> [n, d] or [n, captions, d] real, where zero vectors fill up
        the shorter lists of captions.
      like: sums of the same form; they change nothing here.

    Returns:
      The sums. What dead slots hold does not matter, NaN included.

    Example:
      >>> from asif_jax.core import anchors
      >>> measure(anchors.create({"image": [[2.0, 0.0], [0.0, 1.0]]})).totals["image"].tolist()
      [1.0, 1.0]
    """
    anchors = as_anchors(pairs)
    capacity = anchors.capacity
    if capacity <= ROWS:
        return _sums_of(anchors)

    def sums_from(start: Array | int) -> Sums:
        # The last block begins further left, so that all are of one size; what came before it does
        # not count again.
        first = jnp.minimum(start, capacity - ROWS)
        part: Anchors = jax.tree.map(lambda array: slice_rows(array, first, ROWS), anchors)
        fresh = first + jnp.arange(ROWS, dtype=jnp.int32) >= start
        return _sums_of(part._replace(live=part.live & fresh))

    starts = jnp.arange(ROWS, capacity, ROWS, dtype=jnp.int32)
    return jax.lax.scan(lambda sums, at: (add(sums, sums_from(at)), None), sums_from(0), starts)[0]


def add(first: Sums, second: Sums) -> Sums:
    """The sums over two sets of pairs together.

    Args:
      first: sums over some pairs.
      second: sums over others.

    Returns:
      Their sums.
    """
    return jax.tree.map(jnp.add, first, second)


def subtract(sums: Sums, removed: Sums) -> Sums:
    """The sums over what remains when pairs are removed.

    Args:
      sums: over all pairs.
      removed: over those that go.

    Returns:
      The sums over the others.
    """
    return jax.tree.map(jnp.subtract, sums, removed)


def count_negatives(anchors: Anchors) -> dict[str, Array]:
    """How many live embeddings have a negative entry, as in `Sums.negatives`.

    Args:
      anchors: the pairs.

    Returns:
      modality -> [] float32.
    """

    def count(array: Array) -> Array:
        return jnp.sum(jnp.any(_masked(array, anchors.live) < 0, axis=-1), dtype=jnp.float32)

    return {modality: count(array) for modality, array in anchors.embeddings.items()}


def moments(sums: Sums, modality: str) -> Moments:
    """Mean and covariance of all embeddings of a modality.

    Args:
      sums: over the pairs.
      modality: its name.

    Returns:
      The moments; zero without pairs.
    """
    count = jnp.maximum(sums.counts[modality], 1.0)
    mean = sums.totals[modality] / count
    return Moments(mean, sums.outers[modality] / count - jnp.outer(mean, mean))


def cross_covariance(sums: Sums, first: str, second: str) -> Array:
    """Covariance between the mean embeddings of the pairs in two modalities.

    Args:
      sums: over the pairs.
      first: one modality, [d].
      second: the other, [e].

    Returns:
      [d, e] float32.
    """
    if second < first:
        return cross_covariance(sums, second, first).T
    pairs = jnp.maximum(sums.pairs, 1.0)
    means = jnp.outer(sums.means[first] / pairs, sums.means[second] / pairs)
    return sums.crosses[first][second] / pairs - means


def pair_means(embeddings: Array) -> Array:
    """One vector for each pair: the mean of its embeddings.

    Args:
      embeddings: [..., d], or [..., captions, d] where zero vectors fill up the shorter lists; two
        axes mean one embedding for each pair.

    Returns:
      [n, d] float32.
    """
    values = embeddings.astype(jnp.promote_types(embeddings.dtype, jnp.float32))
    if values.ndim == 2:
        return values
    return jnp.sum(values, axis=1) / jnp.maximum(caption_counts(embeddings), 1)[:, None]


def caption_counts(embeddings: Array) -> Array:
    """[n] int32: how many of the embeddings [n, captions, d] of each pair are not zero."""
    return jnp.sum(jnp.any(embeddings != 0, axis=-1), axis=-1)


def _sums_of(anchors: Anchors) -> Sums:
    """Sums over a block of pairs at once."""
    live = anchors.live
    names = sorted(anchors.embeddings)
    # A dead row may hold anything, NaN included.
    alive = {m: _masked(anchors.embeddings[m], live) for m in names}
    flat = {m: array.reshape(-1, array.shape[-1]) for m, array in alive.items()}
    means = {m: pair_means(array) for m, array in alive.items()}
    present = {m: jnp.any(rows != 0, axis=-1) for m, rows in flat.items()}
    singles = {m: alive[m].ndim == 2 for m in names}
    return Sums(
        pairs=jnp.sum(live, dtype=jnp.float32),
        counts={m: jnp.sum(live if singles[m] else present[m], dtype=jnp.float32) for m in names},
        totals={m: jnp.sum(rows, axis=0, dtype=jnp.float32) for m, rows in flat.items()},
        outers={m: sum_of_outers(rows) for m, rows in flat.items()},
        means={m: jnp.sum(rows, axis=0) for m, rows in means.items()},
        negatives={
            m: jnp.sum(jnp.any(rows < 0, axis=-1), dtype=jnp.float32) for m, rows in flat.items()
        },
        crosses={
            first: {second: product(means[first], means[second]) for second in names[i + 1 :]}
            for i, first in itertools.islice(enumerate(names), len(names) - 1)
        },
    )


def _masked(embeddings: Array, live: Array) -> Array:
    return jnp.where(live.reshape(-1, *(1,) * (embeddings.ndim - 1)), embeddings, 0)
