"""Zero-shot classification of a labelled set: how many images a model names right."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from asif_jax.core import metrics
from asif_jax.data import ImageSet, Skipped
from asif_jax.data.prompts import GENERAL, sentences
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.cache import embed_sentences, embed_set
from asif_jax.jobs.evaluate.intervals import Figure, measure
from asif_jax.model import Model, represented_class_scores
from asif_jax.model import represent_classes as represent_prompts

_WORST = 10


class Classification(NamedTuple):
    """How well a model names the images of a set.

    Attributes:
      classes: holds their names.
      images: counts the images.
      own: counts those of them that are among the model's own pairs.
      top1: is the share of images whose best class is right.
      top5: is the share with the right class among the best five; None with five classes or fewer.
      mean_per_class: is the mean over the classes of the share that is right.
      per_class: holds the share that is right of each class; NaN of one without images.
      counts: holds the number of images of each class.
      confusion: is [classes, classes] int, truth by prediction.
      skipped: lists the images that could not be read.
    """

    classes: tuple[str, ...]
    images: int
    own: int
    top1: Figure
    top5: Figure | None
    mean_per_class: Figure
    per_class: tuple[Figure, ...]
    counts: tuple[int, ...]
    confusion: np.ndarray
    skipped: tuple[Skipped, ...]

    @property
    def none(self) -> int:
        """How many images share no pair with any class, so that they are named as none of them."""
        return self.images - int(self.confusion.sum())


def classify_set(
    model: Model,
    images: ImageSet,
    encoders: Mapping[str, Encoder],
    *,
    cache: Path,
    templates: Sequence[str] = GENERAL,
    prompts: str = "max",
    progress: bool = True,
) -> Classification:
    """Names every image of a labelled set and counts what is right.

    Zero-shot classification as in section 4 of ASIF. Only a part of the set is in memory at once.

    Args:
      model: a model.
      images: a set with classes.
      encoders: modality -> the model's encoder of it, of "image" and "text".
      cache: a directory for embeddings, from which an interrupted run goes on.
      templates: sentences with {} in the place of the class.
      prompts: "max", the best template counts, or "mean", the mean of their embeddings.
      progress: show progress bars on stderr.

    Returns:
      The figures.

    Raises:
      ValueError: a set without classes, unusable templates, or no readable image.
    """
    if not images.classes:
        raise ValueError(f"{images.source} has no classes to tell apart")
    keep = {"cache": cache, "progress": progress}
    texts = represent_classes(
        model, images.classes, templates, encoders["text"], prompts=prompts, **keep
    )
    pairs = {pair.image for pair in model.pairs}
    labels, predicted, ranks, skipped, own = [], [], [], list(images.skipped), 0
    for part in embed_set(images, encoders["image"], **keep):
        skipped.extend(part.skipped)
        if not len(part.labels):
            continue
        guesses, places = _name(model, part.embeddings, texts, part.labels)
        labels.append(part.labels)
        predicted.append(np.asarray(guesses))
        ranks.append(np.asarray(places))
        own += sum(images.reference(i) in pairs for i in part.indices.tolist())
    if not labels:
        raise ValueError(f"none of {images.size} images in {images.source} could be read")
    return _figures(
        images.classes,
        np.concatenate(labels),
        np.concatenate(predicted),
        np.concatenate(ranks),
        own=own,
        skipped=tuple(skipped),
    )


def classification(
    classes: tuple[str, ...],
    labels: np.ndarray,
    scores: np.ndarray,
    *,
    skipped: tuple[Skipped, ...] = (),
) -> Classification:
    """Figures from the scores of images that no model had among its pairs.

    Args:
      classes: their names.
      labels: [b] int, the class of each image.
      scores: [b, classes] float32.
      skipped: images that could not be read.

    Returns:
      The figures.
    """
    predicted, ranks = map(np.asarray, _placed(jnp.asarray(scores), labels))
    return _figures(classes, labels, predicted, ranks, skipped=skipped)


def _figures(
    classes: tuple[str, ...],
    labels: np.ndarray,
    predicted: np.ndarray,
    ranks: np.ndarray,
    *,
    own: int = 0,
    skipped: tuple[Skipped, ...] = (),
) -> Classification:
    """Figures from the best class of each image, and the rank of the right one."""
    count = len(classes)
    figures = measure(functools.partial(_shares, classes=count), {"labels": labels, "ranks": ranks})
    return Classification(
        classes=classes,
        images=len(labels),
        own=own,
        top1=figures["top1"],
        top5=figures["top5"] if count > 5 else None,
        mean_per_class=figures["mean_per_class"],
        per_class=figures["per_class"],
        counts=tuple(np.bincount(labels, minlength=count).tolist()),
        confusion=np.asarray(metrics.confusion_matrix(labels, predicted, classes=count)),
        skipped=skipped,
    )


def represent_classes(
    model: Model,
    classes: Sequence[str],
    templates: Sequence[str],
    encoder: Encoder,
    *,
    prompts: str,
    cache: Path,
    progress: bool = True,
) -> Any:
    """Relative representations of classes in the words of the templates.

    Args:
      model: a model.
      classes: names.
      templates: sentences with {} in the place of the class.
      encoder: the model's encoder of texts.
      prompts: "max", every template on its own, or "mean", the mean of their embeddings.
      cache: a directory for embeddings.
      progress: show a progress bar on stderr.

    Returns:
      Representations as `model.represented_class_scores` takes them.

    Raises:
      ValueError: unusable templates or prompts.
    """
    texts = sentences(classes, templates)
    embeddings = embed_sentences(texts, encoder, cache=cache, progress=progress)
    embeddings = embeddings.reshape(len(classes), len(templates), -1)
    return represent_prompts(model, embeddings, rule=prompts)


def _name(
    model: Model, embeddings: np.ndarray, texts: Any, labels: np.ndarray
) -> tuple[Array, Array]:
    """The best class of each image, -1 where none is, and the rank of the right one."""
    scores = represented_class_scores(model, model.represent(embeddings, "image"), texts)
    return _placed(scores, labels)


def _placed(scores: Array, labels: np.ndarray) -> tuple[Array, Array]:
    """The best class of each image, -1 where none is, and the rank of the right one."""
    # An image that shares no pair with any class resembles none of them.
    scores = jnp.where(jnp.any(scores != 0.0, axis=-1, keepdims=True), scores, jnp.nan)
    right = labels[:, None] == np.arange(scores.shape[-1])
    return jnp.nanargmax(scores, axis=-1), metrics.best_rank(scores, right)


def _shares(rows: Mapping[str, Array], classes: int) -> dict[str, Array]:
    top1 = rows["ranks"] <= 1
    per_class = metrics.class_accuracy(top1, rows["labels"], classes=classes)
    return {
        "top1": jnp.mean(top1),
        "top5": jnp.mean(rows["ranks"] <= 5),
        "mean_per_class": jnp.nanmean(per_class),
        "per_class": per_class,
    }
