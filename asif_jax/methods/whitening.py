"""Centring and whitening of embeddings by statistics of the anchors; ours, not the paper's.

Embeddings of one encoder lie in a narrow cone and vary mostly along a few directions, so that
cosines hardly tell the anchors apart. Whitening with shrinkage removes the mean and evens the
directions out. Cosines in the whitened space are all that changes; ASIF follows as it is, and wants
a larger k and p near 1 there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.cosine import normalize


class Whitening(NamedTuple):
    """Mean and covariance of the unit embeddings of one modality.

    Attributes:
      mean: [d] float32.
      covariance: [d, d] float32.
    """

    mean: Array
    covariance: Array


@jax.jit
def fit(embeddings: ArrayLike, *, live: ArrayLike | None = None) -> Whitening:
    """Measures the mean and covariance of the unit embeddings of the anchors.

    Args:
      embeddings: [n, d] real, of one modality; all captions, if a pair has several.
      live: [n] bool, false for rows that must not count; all live by default.

    Returns:
      The statistics.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> fit([[2.0, 0.0], [0.0, 1.0]]).mean.tolist()
      [0.5, 0.5]
    """
    units = normalize(embeddings)
    alive = jnp.ones(units.shape[:1], bool) if live is None else jnp.asarray(live)
    if units.ndim != 2 or alive.shape != units.shape[:1]:
        raise ValueError(
            f"embeddings must be [n, d] and live [n]: got {units.shape} and {alive.shape}"
        )
    weights = alive / jnp.maximum(jnp.sum(alive), 1)
    # A dead row may hold anything, NaN included.
    units = jnp.where(alive[:, None], units, 0.0)
    mean = weights @ units
    centred = jnp.where(alive[:, None], units - mean, 0.0)
    covariance = jnp.matmul(centred.T * weights, centred, precision=jax.lax.Precision.HIGHEST)
    return Whitening(mean, covariance)


@jax.jit
def whiten(embeddings: ArrayLike, whitening: Whitening, *, shrinkage: ArrayLike = 1.0) -> Array:
    """Centres embeddings and evens out their directions, as far as asked.

    (C + shrinkage * mean variance * I)^(-1/2) (x - mean) for a unit embedding x, the root being a
    Cholesky factor: another root is a rotation of it, which changes no cosine. A large shrinkage
    only centres.

    With 500 Flickr8k pairs (EfficientNet-Lite2 and MiniLM, all settings chosen on held-out pairs)
    recall@10 among 1,000 others went from 0.29 to 0.45 for images and from 0.33 to 0.40 for texts
    (`benchmarks/rivals.py`, 5 seeds).

    Args:
      embeddings: [..., d] real, queries or anchors.
      whitening: from `fit`, of the same modality.
      shrinkage: how much of the mean variance is added to every variance; traced. Below 1e-3, where
        rounding would rule, it counts as 1e-3.

    Returns:
      [..., d] float32, not normalized; a zero embedding stays zero.

    Raises:
      ValueError: the dimensions differ.

    Example:
      >>> units = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> whiten(units, fit(units)).sum(axis=0).round(3).tolist()
      [0.0, 0.0]
    """
    units = normalize(embeddings)
    if units.shape[-1] != whitening.mean.shape[-1]:
        raise ValueError(
            f"embeddings {units.shape} do not have the {whitening.mean.shape[-1]} dimensions that "
            "the whitening was fitted to"
        )
    spread = jnp.trace(whitening.covariance) / whitening.covariance.shape[0]
    # Anchors that are all alike have no spread but rounding.
    added = jnp.maximum(shrinkage, 1e-3) * jnp.where(spread > 1e-12, spread, 1.0)
    shrunk = whitening.covariance + added * jnp.eye(units.shape[-1])
    present = jnp.any(units != 0.0, axis=-1, keepdims=True)
    centred = jnp.where(present, units - whitening.mean, 0.0)
    rows = centred.reshape(-1, units.shape[-1])
    factor = jnp.linalg.cholesky(shrunk)
    white = jax.scipy.linalg.solve_triangular(factor, rows.T, lower=True).T
    return white.reshape(units.shape)
