"""Figures with their uncertainty, as evaluations report them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from asif_jax.core.metrics import bootstrap_interval

RESAMPLES = 1000
CONFIDENCE = 0.95


class Figure(NamedTuple):
    """A figure measured on a sample.

    Attributes:
      value: is what was measured.
      low: is the lower end of its bootstrap interval.
      high: is the upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def __format__(self, spec: str) -> str:
        """The value alone in a given form; without one, the interval too."""
        return format(self.value, spec) if spec else str(self)


def measure(statistic: Callable[[Any], dict[str, Any]], rows: Any) -> dict[str, Any]:
    """Figures with bootstrap intervals, always the same for the same rows.

    Args:
      statistic: rows -> name -> a scalar, or one number for each of several things.
      rows: a pytree of [n, ...] arrays, as `metrics.bootstrap_interval` takes them.

    Returns:
      name -> Figure, or a tuple of them.

    Example:
      >>> import jax.numpy as jnp
      >>> str(measure(lambda rows: {"mean": jnp.mean(rows)}, jnp.ones(5))["mean"])
      '1.000 [1.000, 1.000]'
    """
    values = jax.jit(statistic)(rows)
    ends = bootstrap_interval(
        statistic, rows, jax.random.key(0), resamples=RESAMPLES, confidence=CONFIDENCE
    )
    return {name: _figures(np.asarray(values[name]), np.asarray(ends[name])) for name in values}


def _figures(value: np.ndarray, ends: np.ndarray) -> Figure | tuple[Figure, ...]:
    if value.ndim == 0:
        return Figure(float(value), *ends.tolist())
    return tuple(map(Figure, value.tolist(), *ends.tolist()))
