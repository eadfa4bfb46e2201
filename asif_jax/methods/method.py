"""What a method is: five pure functions, and the name and settings that it is stored by."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jax import Array

from asif_jax.core.explanation import Explanation
from asif_jax.methods.statistics import Pairs, Sums

__all__ = ["Method", "Pairs"]


class Method(NamedTuple):
    """A training-free way to turn pairs into scores, in the form of optax's optimizers.

    Every score is a sum over named pairs, and the score of a query does not depend on the other
    queries. All five functions are pure and work under jit, vmap and grad.

    Attributes:
      fit: (pairs, sums=None) -> state. The pairs are `Anchors`, or modality -> [n, d] or
        [n, captions, d]; the sums are what `measure` gives, where they are known already.
      represent: (state, embeddings [..., d], modality) -> a pytree, a row for each embedding.
      score: (state, left, right) -> [b, m] float32, of batches of representations.
      explain: (state, left, right) -> the `Explanation` of one representation on each side, whose
        contributions add up to their score.
      measure: (pairs, like=None) -> the `Sums` over some pairs that `fit` takes, in the form of
        other sums that they will be added to or subtracted from; None if the method needs none.
      name: what the method is called in a store and on the command line.
      settings: what the function of that name was called with; JSON takes them.
    """

    fit: Callable[..., Any]
    represent: Callable[[Any, Any, str], Any]
    score: Callable[[Any, Any, Any], Array]
    explain: Callable[[Any, Any, Any], Explanation]
    measure: Callable[..., Sums | None]
    name: str
    settings: Mapping[str, Any]


def given(**settings: Any) -> dict[str, Any]:
    """The settings that are not left to a rule: those that are not None.

    Args:
      settings: by name.

    Returns:
      name -> value.

    Example:
      >>> given(k=3, p=None)
      {'k': 3}
    """
    return {name: value for name, value in settings.items() if value is not None}
