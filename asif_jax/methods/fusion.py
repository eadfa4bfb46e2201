"""Several methods as one: their scores added up."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.anchors import Anchors, as_anchors
from asif_jax.core.explanation import Explanation, by_pair, by_size
from asif_jax.methods.method import Method, Pairs
from asif_jax.methods.statistics import Sums, measure


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Parts:
    """What several methods make of the same batch.

    Attributes:
      parts: a representation of each method.
    """

    parts: tuple[Any, ...]

    def __getitem__(self, item) -> "Parts":
        """Selects rows."""
        return Parts(tuple(part[item] for part in self.parts))


class FusedState(NamedTuple):
    """The states of several methods, of the same pairs.

    Attributes:
      anchors: the pairs.
      states: a state of each method.
    """

    anchors: Anchors
    states: tuple[Any, ...]


def fused(*methods: Method, weights: Sequence[float] | None = None) -> Method:
    """A method whose score is the weighted sum of the scores of others.

    Args:
      methods: at least one.
      weights: one for each method; all 1 by default.

    Returns:
      The method.

    Raises:
      ValueError: no method, or not a weight for each.

    Example:
      >>> from asif_jax.methods.canonical_correlations import cca
      >>> from asif_jax.methods.relative_representations import asif
      >>> fused(cca(), asif()).name
      'fused'
    """
    shares = [1.0] * len(methods) if weights is None else [float(w) for w in weights]
    if not methods or len(shares) != len(methods):
        raise ValueError(f"fused takes methods and a weight for each: got {len(methods)}, {shares}")

    def fit(pairs: Pairs, sums: Sums | None = None) -> FusedState:
        anchors = as_anchors(pairs)
        sums = measure(anchors) if sums is None else sums
        return FusedState(anchors, tuple(method.fit(anchors, sums) for method in methods))

    def represent(state: FusedState, embeddings: ArrayLike, modality: str) -> Parts:
        both = zip(methods, state.states, strict=True)
        return Parts(tuple(m.represent(inner, embeddings, modality) for m, inner in both))

    def score(state: FusedState, left: Parts, right: Parts) -> Array:
        parts = zip(methods, state.states, left.parts, right.parts, strict=True)
        scores = [m.score(inner, *both) for m, inner, *both in parts]
        return _weighted(scores, shares)

    def explain(state: FusedState, left: Parts, right: Parts) -> Explanation:
        size = state.anchors.capacity
        parts = zip(methods, state.states, left.parts, right.parts, strict=True)
        found = [by_pair(m.explain(inner, *both), size) for m, inner, *both in parts]
        return by_size(_weighted(found, shares))

    settings = {"methods": [[m.name, dict(m.settings)] for m in methods], "weights": shares}
    return Method(fit, represent, score, explain, measure, "fused", settings)


def _weighted(parts: Sequence[Array], weights: Sequence[float]) -> Array:
    weighted = (weight * part for weight, part in zip(weights, parts, strict=True))
    return functools.reduce(operator.add, weighted)
