"""What a model on disk is for: naming images, finding them, saying why."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asif_jax import encoders
from asif_jax.core.scoring import rank
from asif_jax.data import Skipped
from asif_jax.data.prompts import GENERAL, sentences
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.memory import embed_images, embed_texts
from asif_jax.methods.calibration import Calibration, probabilities
from asif_jax.model import EncoderRecord, Model, class_scores
from asif_jax.store import StoredPair


class Guess(NamedTuple):
    """A label for an image.

    Attributes:
      label: the label.
      score: of the image and the label.
      probability: among the labels to choose from; None without a calibration of the model.
    """

    label: str
    score: float
    probability: float | None = None


class Named(NamedTuple):
    """An image and its best labels.

    Attributes:
      image: the image file.
      guesses: the best labels, best first.
      none: whether none of the labels fits: the best score lies below the threshold that the
        model's calibration found, or the image shares no pair with any label.
    """

    image: str
    guesses: tuple[Guess, ...]
    none: bool = False


class Found(NamedTuple):
    """An image found by a sentence; its captions, if it is one of the model's own."""

    image: str
    captions: tuple[str, ...]
    score: float


class Reason(NamedTuple):
    """A pair behind a score, and what it contributes to it."""

    pair: StoredPair
    contribution: float


def load_encoder(model: Model, modality: str) -> Encoder:
    """Loads the encoder that a model was built with.

    Args:
      model: a model.
      modality: one of the model's.

    Returns:
      The encoder.

    Raises:
      ValueError: its weights are missing, or are not those the model was built with.
    """
    return load_recorded(model.encoders[modality], modality)


def load_recorded(record: EncoderRecord, modality: str) -> Encoder:
    """Loads an encoder that embeddings were made with.

    Args:
      record: which.
      modality: one of the model's.

    Returns:
      The encoder.

    Raises:
      ValueError: its weights are missing, or are not those the embeddings were made with.
    """
    encoder = encoders.load(record.source, modality=modality)
    if encoder.identity != record.identity:
        raise ValueError(
            f"the {modality} encoder {record.source} does not match the model's: it is "
            f"{encoder.identity}, the model was built with {record.identity}"
        )
    return encoder


def name_images(
    model: Model,
    images: Sequence[Path],
    labels: Sequence[str],
    *,
    templates: Sequence[str] = GENERAL,
    prompts: str = "max",
    top: int = 3,
    progress: bool = True,
) -> tuple[list[Named], tuple[Skipped, ...]]:
    """Zero-shot classification of image files.

    Args:
      model: a model.
      images: image files.
      labels: the classes.
      templates: sentences with {} in the place of the label.
      prompts: "max", the best template counts, or "mean", the mean of their embeddings.
      top: labels wanted for an image, at most as many as there are.
      progress: show a progress bar on stderr.

    Returns:
      The readable images with their labels, and the unreadable ones with the reason.

    Raises:
      ValueError: no label, an unusable template, or no readable image.
    """
    in_words = sentences(labels, templates)
    if prompts not in ("max", "mean"):
        raise ValueError(f"prompts must be max or mean: got {prompts!r}")
    image_encoder, text_encoder = (load_encoder(model, m) for m in ("image", "text"))
    embeddings, kept, skipped = embed_images(images, image_encoder, progress=progress)
    texts = embed_texts(in_words, text_encoder).reshape(len(labels), len(templates), -1)
    scores = class_scores(model, embeddings, texts, rule=prompts)
    named = [
        _named(str(images[index]), row, labels, model.calibration, top=top)
        for index, row in zip(kept, np.asarray(scores), strict=True)
    ]
    return named, skipped


def _named(
    image: str,
    scores: np.ndarray,
    labels: Sequence[str],
    calibration: Calibration | None,
    *,
    top: int,
) -> Named:
    """The best labels of an image."""
    best = [int(i) for i in np.argsort(-scores, kind="stable")[:top]]
    if calibration is None:
        guesses = (Guess(labels[i], float(scores[i])) for i in best)
        return Named(image, tuple(guesses), none=not scores.any())
    chances = np.asarray(probabilities(scores, calibration.temperature))
    guesses = (Guess(labels[i], float(scores[i]), float(chances[i])) for i in best)
    none = not scores.any() or float(scores.max()) < calibration.threshold
    return Named(image, tuple(guesses), none=none)


def search_images(
    model: Model,
    text: str,
    images: Sequence[Path] = (),
    *,
    top: int = 5,
    progress: bool = True,
) -> tuple[list[Found], tuple[Skipped, ...]]:
    """Finds images from a sentence.

    Args:
      model: a model.
      text: what to look for.
      images: image files to search; the model's own if there are none.
      top: images wanted, at most as many as there are.
      progress: show a progress bar on stderr.

    Returns:
      The images, best first, and the unreadable ones with the reason.

    Raises:
      ValueError: none of the images given could be read.
    """
    query = embed_texts([text], load_encoder(model, "text"))
    if images:
        encoder = load_encoder(model, "image")
        embeddings, kept, skipped = embed_images(images, encoder, progress=progress)
        gallery = [StoredPair(str(images[index]), ()) for index in kept]
    else:
        embeddings, skipped, gallery = model.anchors.embeddings["image"], (), model.pairs
    scores = model.score(model.represent(query, "text"), model.represent(embeddings, "image"))
    best_scores, best = rank(scores[0], top=min(top, len(gallery)))
    found = [
        Found(gallery[i].image, gallery[i].captions, score)
        for score, i in zip(best_scores.tolist(), best.tolist(), strict=True)
        # What shares no pair with the sentence does not resemble it.
        if score != 0.0
    ]
    return found, skipped


def explain_match(
    model: Model, image: Path, text: str, *, top: int = 5
) -> tuple[float, list[Reason]]:
    """Says which pairs make an image and a sentence match.

    Args:
      model: a model.
      image: an image file.
      text: a sentence.
      top: pairs wanted; those that contribute nothing are left out.

    Returns:
      The score, and the pairs with their contributions, largest first. Over all pairs the
      contributions add up to the score.

    Raises:
      ValueError: the image could not be read.
    """
    pixels, _, _ = embed_images([image], load_encoder(model, "image"), progress=False)
    words = embed_texts([text], load_encoder(model, "text"))
    image, text = model.represent(pixels, "image")[0], model.represent(words, "text")[0]
    explanation = model.explain(image, text)
    ranked = zip(explanation.indices.tolist(), explanation.contributions.tolist(), strict=True)
    reasons = [Reason(model.pairs[i], share) for i, share in list(ranked)[:top] if share]
    return float(explanation.contributions.sum()), reasons
