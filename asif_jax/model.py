"""A model: coupled pairs, the encoders that embedded them, and the method that scores by them.

It is what every job takes. It knows nothing of disks: `asif_jax.store` reads and writes one.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.anchors import Anchors
from asif_jax.core.cosine import normalize
from asif_jax.core.explanation import Explanation
from asif_jax.methods.calibration import Calibration
from asif_jax.methods.hubness import uncorrected
from asif_jax.methods.method import Method
from asif_jax.methods.statistics import Sums, add, subtract


class EncoderRecord(NamedTuple):
    """Which encoder embedded a modality.

    Attributes:
      source: the name or path it was loaded by.
      identity: architecture, weights and preprocessing; the same string means the same embeddings.
    """

    source: str
    identity: str


class Model(NamedTuple):
    """A model and what is needed to use it.

    Attributes:
      anchors: the coupled embeddings; slot i belongs to pairs[i].
      pairs: what the pairs were made of.
      encoders: modality -> the encoder of its embeddings.
      method: how pairs become scores.
      state: of the method, fitted to the pairs.
      sums: over the live pairs, as the method measures them; None if it needs none.
      calibration: turns scores into probabilities; None if none was fitted.
    """

    anchors: Anchors
    pairs: Sequence[Any]
    encoders: Mapping[str, EncoderRecord]
    method: Method
    state: Any
    sums: Sums | None = None
    calibration: Calibration | None = None

    def represent(self, embeddings: ArrayLike, modality: str) -> Any:
        """Representations of embeddings [..., d] of one modality, a row for each."""
        represent = _compiled(self.method.represent, static="modality")
        return represent(self.state, jnp.asarray(embeddings), modality)

    def score(self, left: Any, right: Any) -> Array:
        """[b, m] float32 scores of two batches of representations."""
        return _compiled(self.method.score)(self.state, left, right)

    def explain(self, left: Any, right: Any) -> Explanation:
        """The pairs behind the score of one representation on each side."""
        return _compiled(self.method.explain)(self.state, left, right)


@functools.lru_cache(128)
def _compiled(function: Callable[..., Any], static: str | None = None) -> Callable[..., Any]:
    """A function of a method as one program, the same for all models of that method."""
    return jax.jit(function, static_argnames=static)


def create(
    anchors: Anchors,
    pairs: Sequence[Any],
    encoders: Mapping[str, EncoderRecord],
    method: Method,
    *,
    sums: Sums | None = None,
    calibration: Calibration | None = None,
) -> Model:
    """Fits a method to pairs.

    Args:
      anchors: the coupled embeddings.
      pairs: what they were made of; pairs[i] belongs to slot i.
      encoders: modality -> the encoder of its embeddings.
      method: how pairs become scores.
      sums: over the live pairs, if they are known; measured by default.
      calibration: of the scores, if there is one.

    Returns:
      The model.

    Example:
      >>> from asif_jax import anchors, methods
      >>> pairs = anchors.create({"image": [[1.0, 0.0]], "text": [[0.0, 1.0]]})
      >>> create(pairs, ["a.png"], {}, methods.paper()).method.name
      'paper'
    """
    sums = method.measure(anchors) if sums is None else sums
    state = method.fit(anchors, sums)
    return Model(anchors, pairs, encoders, method, state, sums, calibration)


def with_method(model: Model, method: Method) -> Model:
    """The same pairs under another method.

    Args:
      model: a model.
      method: the other method.

    Returns:
      The model; its calibration does not apply any more and is dropped.
    """
    return create(model.anchors, model.pairs, model.encoders, method)


def edited(
    model: Model, anchors: Anchors, *, added: Anchors | None = None, removed: Anchors | None = None
) -> Model:
    """The model after some of its pairs came or went, without a pass over the other pairs' sums.

    The sums over what was added and removed bring the sums up to date, and the method is fitted to
    those, as a refit would.

    Args:
      model: the model before.
      anchors: the pairs now.
      added: the rows of the pairs that came, from `rows_of`.
      removed: the rows of the pairs that went, from `rows_of` before they went.

    Returns:
      The model now; its `pairs` are those of before.
    """
    if model.sums is None:
        return model._replace(anchors=anchors, state=model.method.fit(anchors))
    sums = changed_sums(model.method, model.sums, added=added, removed=removed)
    if sums is None:
        sums = model.method.measure(anchors)
    return model._replace(anchors=anchors, state=model.method.fit(anchors, sums), sums=sums)


def changed_sums(
    method: Method, sums: Sums, *, added: Anchors | None = None, removed: Anchors | None = None
) -> Sums | None:
    """The sums over pairs after some came or went.

    Args:
      method: the method that measured them.
      sums: over the pairs before.
      added: the pairs that came.
      removed: the pairs that went.

    Returns:
      The sums now; None if all pairs must be measured anew, because square roots are taken of
      modalities without negative entries, which are others now.
    """
    now = sums
    for change, rows in ((add, added), (subtract, removed)):
        measured = None if rows is None else method.measure(rows, sums)
        if measured is not None:
            now = change(now, measured)
    return now if _signs(now) == _signs(sums) else None


def rows_of(anchors: Anchors, slots: Sequence[int] | np.ndarray) -> Anchors | None:
    """Some slots of a model as pairs of their own, all of them live.

    Args:
      anchors: the model.
      slots: [b] int, on the host.

    Returns:
      The pairs, with surplus free slots so that few numbers of slots compile; None without slots.

    Example:
      >>> pairs = Anchors({"image": jnp.eye(4)}, jnp.ones(4, bool))
      >>> rows_of(pairs, [2, 3, 0]).live.tolist()
      [True, True, True, False]
    """
    slots = np.asarray(slots, np.int32)
    if not len(slots):
        return None
    size = 1 << (len(slots) - 1).bit_length()
    padded = np.pad(slots, (0, size - len(slots)))
    rows = {m: array[padded] for m, array in anchors.embeddings.items()}
    return Anchors(rows, jnp.arange(size) < len(slots))


def class_scores(
    model: Model, images: ArrayLike, prompts: ArrayLike, *, rule: str = "max"
) -> Array:
    """Scores of inputs for classes that are put into words by several prompts each.

    Args:
      model: a model.
      images: [b, d] embeddings of the inputs, of the modality "image".
      prompts: [classes, prompts, e] embeddings of sentences.
      rule: "max", the best prompt of a class counts, or "mean", the mean of their embeddings.

    Returns:
      [b, classes] float32.

    Raises:
      ValueError: another rule.
    """
    return represented_class_scores(
        model, model.represent(images, "image"), represent_classes(model, prompts, rule=rule)
    )


def represent_classes(model: Model, prompts: ArrayLike, *, rule: str = "max") -> Any:
    """Representations of classes, for `represented_class_scores`.

    Args:
      model: a model.
      prompts: [classes, prompts, e] embeddings of sentences.
      rule: "max" or "mean".

    Returns:
      A pytree whose leaves lead with [classes, prompts], or [classes, 1] for "mean".

    Raises:
      ValueError: another rule.
    """
    prompts = jnp.asarray(prompts)
    if rule not in ("max", "mean"):
        raise ValueError(f"prompts must be max or mean: got {rule!r}")
    if rule == "mean":
        prompts = normalize(jnp.mean(normalize(prompts), axis=1, keepdims=True))
    return uncorrected(model.represent(prompts, "text"))


def represented_class_scores(model: Model, images: Any, classes: Any) -> Array:
    """Scores of represented inputs for represented classes, the best prompt of each counting.

    Args:
      model: a model.
      images: representations, [b].
      classes: from `represent_classes`.

    Returns:
      [b, classes] float32.
    """
    count, prompts = jax.tree.leaves(classes)[0].shape[:2]
    flat = jax.tree.map(lambda a: a.reshape(count * prompts, *a.shape[2:]), classes)
    scores = model.score(images, flat)
    return scores.reshape(-1, count, prompts).max(axis=-1)


def _signs(sums: Sums) -> dict[str, bool]:
    return {modality: bool(count == 0) for modality, count in sums.negatives.items()}
