"""How good a ranking is, as the field measures it, and how sure that is.

Top-k accuracy, confusion, recall@k, median rank, and bootstrap intervals for any of them. Ties rank
by the lower index, as `scoring.rank` orders them. A score that is NaN finds nothing, and neither
does a query without a relevant item: its rank is `UNRANKED`, so that no k counts it as a hit.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

UNRANKED = 2**31 - 1
"""The rank of a query that finds nothing: beyond every k, however few items there are."""


def best_rank(scores: ArrayLike, relevant: ArrayLike) -> Array:
    """Rank, from 1, of the best placed relevant item of each query.

    Args:
      scores: [b, m] real. An item whose score is NaN comes after all others, and is never found.
      relevant: [b, m] bool, the right answers; a query may have several.

    Returns:
      [b] int32 in 1..m, or `UNRANKED` for a query that has no relevant item with a score. So
      `ranks <= k` says which queries are hits at any k.

    Raises:
      ValueError: the shapes differ.

    Example:
      >>> best_rank([[0.1, 0.7, 0.4]], [[False, False, True]]).tolist()
      [2]
    """
    scores, relevant = jnp.asarray(scores), jnp.asarray(relevant)
    if scores.shape != relevant.shape or scores.ndim != 2:
        raise ValueError(f"scores {scores.shape} and relevant {relevant.shape} must be one [b, m]")
    # Counting what comes before takes one pass, and no memory for an order of all.
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    found = relevant & ~jnp.isnan(scores)
    best = jnp.max(scores, axis=-1, keepdims=True, where=found, initial=-jnp.inf)
    items, count = jnp.arange(scores.shape[-1]), scores.shape[-1]
    places = jnp.where(found & (scores == best), items, count)
    place = jnp.min(places, axis=-1, keepdims=True, initial=count)
    # A comparison with NaN is false, so that NaN comes before nothing.
    before = (scores > best) | ((scores == best) & (items < place))
    rank = jnp.sum(before, axis=-1, dtype=jnp.int32) + 1
    return jnp.where(found.any(axis=-1), rank, UNRANKED)


def recall_at_k(scores: ArrayLike, relevant: ArrayLike, *, k: int) -> Array:
    """Share of queries with a relevant item among the first k (recall@k of retrieval papers).

    A query without a relevant item, or whose relevant items all score NaN, is a miss at every k.

    Args:
      scores: [b, m] real.
      relevant: [b, m] bool.
      k: how many places count; it may exceed m.

    Returns:
      A float32 scalar in [0, 1]; NaN for an empty batch.

    Example:
      >>> recall_at_k([[0.1, 0.7, 0.4]], [[False, False, True]], k=2).item()
      1.0
    """
    return jnp.mean(best_rank(scores, relevant) <= k)


def median_rank(scores: ArrayLike, relevant: ArrayLike) -> Array:
    """Median over queries of the best relevant item's rank, from 1.

    A query that finds nothing counts as m + 1, as if its answer came after all items.

    Args:
      scores: [b, m] real.
      relevant: [b, m] bool.

    Returns:
      A float32 scalar; NaN for an empty batch.

    Example:
      >>> median_rank([[0.1, 0.7], [0.6, 0.4]], [[True, False], [True, False]]).item()
      1.5
    """
    scores = jnp.asarray(scores)
    ranks = jnp.minimum(best_rank(scores, relevant), scores.shape[-1] + 1)
    return jnp.median(ranks.astype(jnp.float32)) if ranks.size else jnp.float32(jnp.nan)


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, *, k: int = 1) -> Array:
    """Share of rows whose label is among the k highest scores.

    A row is wrong at every k if the score of its label is NaN, or if its label is no class.

    Args:
      scores: [b, classes] real.
      labels: [b] int, the right class of each row.
      k: how many guesses count.

    Returns:
      A float32 scalar in [0, 1]; NaN for an empty batch.

    Example:
      >>> top_k_accuracy([[0.1, 0.7], [0.6, 0.4]], [1, 1]).item()
      0.5
    """
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    return recall_at_k(scores, labels[:, None] == jnp.arange(scores.shape[-1]), k=k)


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, *, classes: int) -> Array:
    """How often each class was taken for each.

    Args:
      labels: [b] int, the right classes.
      predicted: [b] int, the classes named; say -1 for a row that names none.
      classes: how many there are; static.

    Returns:
      [classes, classes] int32, truth by prediction. Rows outside 0..classes-1 are not counted.

    Example:
      >>> confusion_matrix([0, 0, 1], [0, 1, 1], classes=2).tolist()
      [[1, 1], [0, 1]]
    """
    labels, predicted = (
        jnp.where(array < 0, classes, array) for array in map(jnp.asarray, (labels, predicted))
    )
    counts = jnp.zeros([classes, classes], jnp.int32)
    return counts.at[labels, predicted].add(1, mode="drop")


def class_accuracy(hits: ArrayLike, labels: ArrayLike, *, classes: int) -> Array:
    """Share of hits within each class; its mean is what papers call mean per class accuracy.

    Args:
      hits: [b] bool, which rows are right.
      labels: [b] int, the right classes.
      classes: how many there are; static.

    Returns:
      [classes] float32, NaN for a class without rows.

    Example:
      >>> class_accuracy([True, False, True], [0, 0, 1], classes=2).tolist()
      [0.5, 1.0]
    """
    hits, labels = jnp.asarray(hits, jnp.float32), jnp.asarray(labels)
    right, all_rows = (
        jax.ops.segment_sum(values, labels, classes) for values in (hits, jnp.ones_like(hits))
    )
    return right / all_rows


@functools.partial(jax.jit, static_argnames=("statistic", "resamples"))
def bootstrap_interval(
    statistic: Callable[[Any], Any],
    data: Any,
    key: Array,
    *,
    resamples: int = 1000,
    confidence: ArrayLike = 0.95,
) -> Any:
    """Percentile bootstrap intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 13.3.

    Args:
      statistic: rows as `data` -> the figures of interest, a pytree of float arrays; static.
      data: a pytree of [n, ...] arrays whose rows were drawn independently of each other. What
        belongs together, such as the captions of one image, must be one row.
      key: of the drawing.
      resamples: how many times n rows are drawn, with replacement; static.
      confidence: the share of resamples that lies within the intervals.

    Returns:
      The figures' lower and upper ends: the pytree of `statistic` with [2, ...] float32 arrays.
      Resamples in which a figure is NaN do not count for it.

    Raises:
      ValueError: no rows, or differing numbers of them.

    Example:
      >>> bootstrap_interval(jnp.mean, jnp.ones(9), jax.random.key(0), resamples=10).tolist()
      [1.0, 1.0]
    """
    counts = {leaf.shape[:1] for leaf in map(jnp.asarray, jax.tree.leaves(data))}
    if len(counts) != 1 or counts <= {(), (0,)}:
        raise ValueError(f"the bootstrap needs the same rows, at least one, in all data: {counts}")
    ((n,),) = counts

    def resample(key: Array) -> Any:
        rows = jax.random.randint(key, [n], 0, n)
        return statistic(jax.tree.map(lambda array: jnp.asarray(array)[rows], data))

    figures = jax.lax.map(resample, jax.random.split(key, resamples))
    ends = jnp.stack([(1 - jnp.asarray(confidence)) / 2, (1 + jnp.asarray(confidence)) / 2])
    return jax.tree.map(lambda values: jnp.nanquantile(values, ends, axis=0), figures)
