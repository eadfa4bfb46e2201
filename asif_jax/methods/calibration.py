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
def fit_threshold(own: ArrayLike, other: ArrayLike) -> Array:
    """The score that best tells pairs that belong together from pairs that do not.

    Args:
      own: [a] real, scores of held-out pairs.
      other: [b] real, scores of held-out inputs with the other sides of other pairs.

    Returns:
      A float32 scalar: of all midways between neighbouring scores, that with the largest share of
      own scores above it plus share of other scores below it.

    Raises:
      ValueError: no scores of either kind.

    Example:
      >>> fit_threshold([0.6, 0.8], [0.1, 0.2]).item()
      0.4000000059604645
    """
    own, other = (
        jnp.ravel(jnp.asarray(own, jnp.float32)),
        jnp.ravel(jnp.asarray(other, jnp.float32)),
    )
    if not own.size or not other.size:
        raise ValueError(f"a threshold needs scores of both kinds: got {own.size}, {other.size}")
    ordered = jnp.sort(jnp.concatenate([own, other]))
    middles = (ordered[:-1] + ordered[1:]) / 2
    above = 1.0 - jnp.searchsorted(jnp.sort(own), middles) / own.size
    below = jnp.searchsorted(jnp.sort(other), middles) / other.size
    return middles[jnp.argmax(above + below)]


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
