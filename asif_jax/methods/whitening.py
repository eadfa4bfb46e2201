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

# What rounding leaves of the squared length of unit vectors minus their mean.
_ROUNDING = 1e-6


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


class Metric(NamedTuple):
    """A whitened space: what distances and cosines are measured by there.

    Attributes:
      mean: [d] float32.
      factor: [d, d] float32, the lower Cholesky factor L of the shrunk covariance.
    """

    mean: Array
    factor: Array


def shrunk_metric(mean: Array, covariance: Array, shrinkage: ArrayLike) -> Metric:
    """The metric of (C + shrinkage * mean variance * I)^-1, factorized once.

    Args:
      mean: [d] float32.
      covariance: [d, d] float32, C.
      shrinkage: how much of the mean variance is added to every variance; traced. Below 1e-3, where
        rounding would rule, it counts as 1e-3.

    Returns:
      The metric.

    Example:
      >>> shrunk_metric(jnp.zeros(2), jnp.eye(2), 3.0).factor.tolist()
      [[2.0, 0.0], [0.0, 2.0]]
    """
    spread = jnp.trace(covariance) / covariance.shape[0]
    # Anchors that are all alike have no spread but rounding.
    varied = jnp.trace(covariance) > _ROUNDING
    added = jnp.maximum(shrinkage, 1e-3) * jnp.where(varied, spread, 1.0)
    shrunk = covariance + added * jnp.eye(covariance.shape[0], dtype=covariance.dtype)
    return Metric(mean, jnp.linalg.cholesky(shrunk))


def whitened(units: Array, metric: Metric) -> Array:
    """L^-1 (x - mean) of unit embeddings [..., d]; a zero embedding stays zero."""
    return solve_rows(metric.factor, centred(units, metric.mean))


def centred(units: Array, mean: Array) -> Array:
    """The embeddings [..., d] minus the mean; zero for zero, and for the mean itself."""
    present = jnp.any(units != 0.0, axis=-1, keepdims=True)
    moved = jnp.where(present, units - mean, 0.0)
    # Of the mean itself rounding would leave a direction of its own. The negation lets NaN through.
    return jnp.where(~(jnp.sum(moved**2, axis=-1, keepdims=True) <= _ROUNDING**2), moved, 0.0)


def solve_rows(factor: Array, rows: Array, *, transposed: bool = False) -> Array:
    """L^-1 x, or L^-T x, of every row x [..., d] for a lower triangular L [d, d]."""
    flat = rows.reshape(-1, rows.shape[-1])
    trans = "T" if transposed else "N"
    solved = jax.scipy.linalg.solve_triangular(factor, flat.T, lower=True, trans=trans)
    return solved.T.reshape(rows.shape)


@jax.jit
def whiten(embeddings: ArrayLike, whitening: Whitening, *, shrinkage: ArrayLike = 1.0) -> Array:
    """Centres embeddings and evens out their directions, as far as asked.

    (C + shrinkage * mean variance * I)^(-1/2) (x - mean) for a unit embedding x, the root being a
    Cholesky factor: another root is a rotation of it, which changes no cosine. A large shrinkage
    only centres.

    Args:
      embeddings: [..., d] real, queries or anchors.
      whitening: from `fit`, of the same modality.
      shrinkage: as for `shrunk_metric`; traced.

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
    return whitened(units, shrunk_metric(whitening.mean, whitening.covariance, shrinkage))
