"""Probabilities from scores, and when nothing matches: fitted on pairs held out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

_STEPS = 60


class Calibration(NamedTuple):
    """What makes the scores of a model comparable to chance.

    Attributes:
      temperature: of the softmax that turns scores for labels into probabilities.
      threshold: the score below which an input and a sentence have nothing to do with each other.
    """

    temperature: float
    threshold: float


@jax.jit
def fit_threshold(own: ArrayLike, *, share: ArrayLike = 0.01) -> Array:
    """The score that few pairs that belong together stay below.

    A short label resembles an image less than a caption of it does, so the share is small: an image
    that one of the labels fits should not be called "none of these".

    Args:
      own: [a] real, scores of held-out pairs.
      share: of them that may stay below.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: no scores.

    Example:
      >>> fit_threshold([0.2, 0.4, 0.6], share=0.5).item()
      0.4000000059604645
    """
    own = jnp.ravel(jnp.asarray(own, jnp.float32))
    if not own.size:
        raise ValueError("a threshold needs scores of pairs that belong together: got none")
    return jnp.quantile(own, share)


@jax.jit
def fit_temperature(scores: ArrayLike, labels: ArrayLike) -> Array:
    """The temperature at which softmax(scores / temperature) is most likely to give the labels.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The likelihood
    is concave in 1 / temperature, so bisection on its derivative finds the maximum. For ASIF, whose
    scores are cosines, it is an addition of ours; it changes no ranking.

    Args:
      scores: [b, m] real, of held-out queries.
      labels: [b] int, the right item of each.

    Returns:
      A float32 scalar, within 1e-4 and 1e4 times the deviation of the scores. Where every label has
      the highest score it is one at which all probabilities round to 1 or 0; where the scores say
      nothing, the largest.

    Raises:
      ValueError: shapes that do not fit.

    Example:
      >>> round(fit_temperature([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], [0, 0, 1]).item(), 3)
      1.443
    """
    scores, labels = jnp.asarray(scores, jnp.float32), jnp.asarray(labels)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores must be [b, m] and labels [b]: got {scores.shape} and {labels.shape}"
        )
    deviation = jnp.std(scores)
    scale = jnp.where(deviation > 0.0, deviation, 1.0)
    scaled = (scores - jnp.max(scores, axis=-1, keepdims=True)) / scale
    right = jnp.take_along_axis(scaled, labels[:, None], axis=-1)[:, 0]

    def too_flat(log_inverse: Array) -> Array:
        weights = jax.nn.softmax(scaled * jnp.exp(log_inverse), axis=-1)
        return jnp.mean(right - jnp.sum(weights * scaled, axis=-1)) > 0.0

    def halve(_, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        flat = too_flat(middle)
        return jnp.where(flat, middle, low), jnp.where(flat, high, middle)

    end = jnp.log(jnp.float32(1e4))
    low, high = jax.lax.fori_loop(0, _STEPS, halve, (-end, end))
    return scale * jnp.exp(-(low + high) / 2)


@jax.jit
def probabilities(scores: ArrayLike, temperature: ArrayLike) -> Array:
    """Softmax of scores at a temperature.

    Args:
      scores: [..., m] real.
      temperature: a positive scalar, from `fit_temperature`.

    Returns:
      [..., m] float32 that add up to 1.

    Example:
      >>> probabilities([0.5, 0.5], 0.1).tolist()
      [0.5, 0.5]
    """
    return jax.nn.softmax(jnp.asarray(scores) / temperature, axis=-1)
