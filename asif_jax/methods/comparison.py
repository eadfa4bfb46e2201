"""Methods tried on pairs held out, and on naming images of another kind.

What wins retrieval among held-out pairs of one source is not what wins on other images, so both are
measured: recall among pairs of the model that are held out at random, which takes no labels, and,
where labelled images are at hand, how many of those are named right.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.anchors import Anchors
from asif_jax.core.metrics import recall_at_k
from asif_jax.methods.calibration import Calibration, fit_temperature, fit_threshold
from asif_jax.methods.hubness import uncorrected
from asif_jax.methods.method import Method

_MOST_HELD_OUT = 300


class Naming(NamedTuple):
    """Labelled inputs to name.

    Attributes:
      inputs: [b, d] embeddings of the first modality by name (images).
      prompts: [classes, prompts, e] embeddings of sentences for each class.
      labels: [b] int, the right classes.
    """

    inputs: ArrayLike
    prompts: ArrayLike
    labels: ArrayLike


class Trial(NamedTuple):
    """How well a method did.

    Attributes:
      method: the method.
      recall: [splits] recall@`at` among held-out pairs, mean of both directions.
      named: the share of labelled inputs named right; None without any.
      inputs: how many labelled inputs there were.
      at: how many places count.
      held_out: pairs searched among in each split.
    """

    method: Method
    recall: np.ndarray
    named: float | None
    inputs: int
    at: int
    held_out: int


def compare(
    pairs: Anchors,
    candidates: Sequence[Method],
    *,
    naming: Naming | None = None,
    splits: int = 3,
    held_out: int | None = None,
    at: int = 10,
    seed: int = 0,
) -> Iterator[Trial]:
    """Tries methods on pairs held out, and on labelled inputs.

    In each split the held-out pairs leave the model, and each side searches the other among them,
    the first caption of each pair asking. Labelled inputs are named by a model of all pairs.

    Args:
      pairs: of two modalities or more; the first two by name are tried.
      candidates: methods.
      naming: labelled inputs, if there are any.
      splits: how many times pairs are held out.
      held_out: how many; by default a fifth of the live pairs, at most 300.
      at: how many places count.
      seed: of the splits.

    Yields:
      A trial for each candidate, in order.

    Raises:
      ValueError: too few pairs, splits or modalities.
    """
    live = np.flatnonzero(pairs.live)
    held_out = min(_MOST_HELD_OUT, max(len(live) // 5, 1)) if held_out is None else held_out
    if not 1 <= held_out < len(live) or splits < 1 or len(pairs.embeddings) < 2:
        raise ValueError(
            f"a trial holds out at least one pair and keeps one: got {held_out} of {len(live)} "
            f"pairs, {splits} splits, modalities {sorted(pairs.embeddings)}"
        )
    parts = [_split(pairs, live, held_out, seed + number) for number in range(splits)]
    for method in candidates:
        recall = [_held_out_recall(method, rest, asked, at) for rest, asked in parts]
        named = None if naming is None else named_right(method, pairs, naming)
        inputs = 0 if naming is None else len(jnp.asarray(naming.labels))
        yield Trial(method, np.asarray(recall), named, inputs, at, held_out)


def choose(trials: Sequence[Trial]) -> Trial:
    """The trial that does best, of equals the first.

    Args:
      trials: from `compare`.

    Returns:
      The trial of the highest mean recall; with labelled inputs, of the highest product of mean
      recall and the share named right, so that neither is bought with the other.
    """

    def worth(trial: Trial) -> float:
        named = 1.0 if trial.named is None else max(trial.named, 0.5 / max(trial.inputs, 1))
        return float(trial.recall.mean()) * named

    return max(trials, key=worth)


def named_right(method: Method, pairs: Anchors, naming: Naming) -> float:
    """The share of labelled inputs that a method names right, one at a time.

    Args:
      method: the method.
      pairs: its pairs.
      naming: the inputs.

    Returns:
      A share, the best prompt of each class counting.
    """
    first, second = sorted(pairs.embeddings)[:2]
    state = method.fit(pairs)
    prompts = jnp.asarray(naming.prompts)
    classes, each, width = prompts.shape
    texts = uncorrected(method.represent(state, prompts.reshape(-1, width), second))
    scores = method.score(state, method.represent(state, naming.inputs, first), texts)
    best = scores.reshape(-1, classes, each).max(axis=-1).argmax(axis=-1)
    return float(jnp.mean(best == jnp.asarray(naming.labels)))


def calibrate(method: Method, pairs: Anchors, *, seed: int = 0) -> Calibration:
    """Fits probabilities and the threshold of "none of these" on pairs held out.

    A fifth of the pairs, at most 300, leave the model. Their inputs are scored for their first
    captions as they would be for given labels.

    Args:
      method: the method.
      pairs: at least two, of two modalities or more.
      seed: of the split.

    Returns:
      The calibration.

    Raises:
      ValueError: fewer than three live pairs.
    """
    live = np.flatnonzero(pairs.live)
    if len(live) < 3:
        raise ValueError(f"a calibration holds out two pairs and keeps one: got {len(live)} pairs")
    count = min(_MOST_HELD_OUT, max(len(live) // 5, 2))
    rest, asked = _split(pairs, live, count, seed)
    state = method.fit(rest)
    left, right = (method.represent(state, array, m) for m, array in asked.items())
    scores = method.score(state, left, uncorrected(right))
    temperature = fit_temperature(scores, jnp.arange(count))
    return Calibration(float(temperature), float(fit_threshold(jnp.diagonal(scores))))


def _split(
    pairs: Anchors, live: np.ndarray, held_out: int, seed: int
) -> tuple[Anchors, dict[str, Array]]:
    """The pairs without some of them, and the embeddings of those in the first two modalities."""
    rows = np.random.default_rng(seed).permutation(live)[:held_out]
    rest = pairs._replace(live=pairs.live.at[rows].set(False))
    names = sorted(pairs.embeddings)[:2]
    return rest, {m: _first_caption(pairs.embeddings[m][rows]) for m in names}


def _held_out_recall(method: Method, rest: Anchors, asked: dict[str, Array], at: int) -> float:
    """Mean of both directions."""
    state = method.fit(rest)
    left, right = (method.represent(state, array, m) for m, array in asked.items())
    scores = method.score(state, left, right)
    own = np.eye(scores.shape[0], dtype=bool)
    both = [recall_at_k(s, own, k=at) for s in (scores, scores.T)]
    return float(np.mean(both))


def _first_caption(embeddings: Array) -> Array:
    return embeddings if embeddings.ndim == 2 else embeddings[:, 0]
