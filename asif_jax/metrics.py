"""How good a ranking is, as the field measures it: top-k accuracy, recall@k, median rank.

Ties rank by the lower index, as `scoring.rank` orders them.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def best_rank(scores: ArrayLike, relevant: ArrayLike) -> Array:
    """Rank, from 1, of the best placed relevant item of each query.

    Args:
      scores: [b, m] real.
      relevant: [b, m] bool, the right answers; several a query are allowed.

    Returns:
      [b] int32, m + 1 for a query without a relevant item. A NaN score ranks last.

    Raises:
      ValueError: the shapes differ.

    Example:
      >>> best_rank([[0.1, 0.7, 0.4]], [[False, False, True]]).tolist()
      [2]
    """
    scores, relevant = jnp.asarray(scores), jnp.asarray(relevant)
    if scores.shape != relevant.shape or scores.ndim != 2:
        raise ValueError(f"scores {scores.shape} and relevant {relevant.shape} must be one [b, m]")
    order = jnp.argsort(-scores, axis=-1, stable=True)
    hits = jnp.take_along_axis(relevant, order, axis=-1)
    first = jnp.argmax(hits, axis=-1) + 1
    return jnp.where(hits.any(axis=-1), first, scores.shape[-1] + 1).astype(jnp.int32)


def recall_at_k(scores: ArrayLike, relevant: ArrayLike, *, k: int) -> Array:
    """Share of queries with a relevant item among the first k (recall@k of retrieval papers).

    Args:
      scores: [b, m] real.
      relevant: [b, m] bool.
      k: how many places count.

    Returns:
      A float32 scalar in [0, 1]; NaN for an empty batch.

    Example:
      >>> recall_at_k([[0.1, 0.7, 0.4]], [[False, False, True]], k=2).item()
      1.0
    """
    return jnp.mean(best_rank(scores, relevant) <= k)


def median_rank(scores: ArrayLike, relevant: ArrayLike) -> Array:
    """Median over queries of the best relevant item's rank, from 1.

    Args:
      scores: [b, m] real.
      relevant: [b, m] bool.

    Returns:
      A float32 scalar; NaN for an empty batch.

    Example:
      >>> median_rank([[0.1, 0.7], [0.6, 0.4]], [[True, False], [True, False]]).item()
      1.5
    """
    return jnp.median(best_rank(scores, relevant).astype(jnp.float32))


def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, *, k: int = 1) -> Array:
    """Share of rows whose label is among the k highest scores.

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
