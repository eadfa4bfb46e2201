"""The demonstration: a model from a few hundred pairs, tried on pairs it has not seen."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from asif_jax import methods
from asif_jax.core import anchors
from asif_jax.core.scoring import rank
from asif_jax.data import PairList, Skipped
from asif_jax.data.prompts import sentences
from asif_jax.encoders import Encoder
from asif_jax.jobs.demo import folds as evaluation
from asif_jax.jobs.demo.folds import Fold, cross_validation
from asif_jax.jobs.embedding.memory import EmbeddedPairs, embed_pairs, embed_texts
from asif_jax.jobs.evaluate.classification import Classification, classification
from asif_jax.jobs.evaluate.retrieval import SetRetrieval
from asif_jax.methods import Method

# How the folders of the stamps are called when one of their things is meant.
STAMP_CLASSES = {"animals": "animal", "food": "food", "plants": "plant", "vehicles": "vehicle"}
STAMP_QUERIES = ("a bird", "something to eat", "a musical instrument")
TEMPLATES = ("{}", "a {}.", "a photo of a {}.")
_SEED = 0


class Evidence(NamedTuple):
    """A pair behind a score, and what it contributes to it."""

    image: Path
    caption: str
    contribution: float


class CaptionGuess(NamedTuple):
    """A caption, its score, and whether it belongs to the image."""

    caption: str
    score: float
    correct: bool


class Prediction(NamedTuple):
    """An unseen image, its own caption, the model's guesses, and the pairs behind the first."""

    image: Path
    caption: str
    guesses: Sequence[CaptionGuess]
    evidence: Sequence[Evidence]


class FoundImage(NamedTuple):
    """An image found by a sentence, its caption, which the search did not use, and the score."""

    image: Path
    caption: str
    score: float


class Searched(NamedTuple):
    """A sentence and the images it finds, best first."""

    query: str
    found: Sequence[FoundImage]


class Demonstration(NamedTuple):
    """Everything the demonstration found.

    Attributes:
      pairs: how many pairs were used.
      skipped: what was not, and why.
      encoders: modality -> name.
      folds: number of folds.
      anchors: number of anchors of the first fold's model.
      method: the name of the method.
      settings: those of the method that are not left to a rule.
      retrieval: recall both ways with chance.
      classes: zero-shot classification, if the pairs lie in folders to name.
      examples: predictions explained.
      searches: sentences and what they find.
      building: seconds to build a model of all pairs, from embeddings.
      encoding: seconds the encoders took, compilation included.
    """

    pairs: int
    skipped: tuple[Skipped, ...]
    encoders: Mapping[str, str]
    folds: int
    anchors: int
    method: str
    settings: Mapping[str, Any]
    retrieval: SetRetrieval
    classes: Classification | None
    examples: tuple[Prediction, ...]
    searches: tuple[Searched, ...]
    building: float
    encoding: float


def run(
    source: PairList,
    encoders: Mapping[str, Encoder],
    *,
    class_names: Mapping[str, str] | None = None,
    queries: Sequence[str] = (),
    method: Method | None = None,
    folds: int = 5,
    examples: int = 3,
    progress: bool = True,
) -> Demonstration:
    """Embeds the pairs, cross-validates, explains.

    Args:
      source: the pairs.
      encoders: modality -> its encoder: "image" of the images, "text" of the captions.
      class_names: group -> name, the groups to tell apart; by default every group by its own name.
      queries: sentences to search the first fold's held-out images with.
      method: how pairs become scores; by default the method that we recommend.
      folds: parts of the cross-validation.
      examples: how many predictions of the first fold to explain.
      progress: show progress bars on stderr.

    Returns:
      What was found.

    Raises:
      ValueError: too few pairs, or unreadable images.
    """
    method = methods.best() if method is None else method
    start = time.perf_counter()
    embedded = embed_pairs(source.pairs, encoders, progress=progress)
    classes = class_names or _group_names(embedded)
    prompts = _embed_prompts(tuple(classes.values()), encoders["text"]) if classes else None
    sentences = embed_texts(queries, encoders["text"]) if queries else None
    encoding = time.perf_counter() - start

    start = time.perf_counter()
    pairs = anchors.create(embedded.by_modality())
    jax.block_until_ready(method.fit(pairs))
    building = time.perf_counter() - start

    all_folds = list(cross_validation(embedded, method=method, folds=folds, seed=_SEED))
    first = all_folds[0]
    return Demonstration(
        pairs=len(embedded.pairs),
        skipped=source.skipped + embedded.skipped,
        encoders={modality: encoder.name for modality, encoder in encoders.items()},
        folds=folds,
        anchors=len(first.members),
        method=method.name,
        settings=method.settings,
        retrieval=evaluation.retrieval(embedded, all_folds),
        classes=None if prompts is None else _classes(embedded, all_folds, classes, prompts),
        examples=_examples(embedded, first, count=examples),
        searches=() if sentences is None else _searches(embedded, first, queries, sentences),
        building=building,
        encoding=encoding,
    )


def _group_names(embedded: EmbeddedPairs) -> dict[str, str]:
    """The groups as classes, if there are at least two."""
    groups = sorted({pair.group for pair in embedded.pairs if pair.group})
    return {g: g.replace("_", " ") for g in groups} if len(groups) > 1 else {}


def _embed_prompts(labels: Sequence[str], encoder: Encoder) -> np.ndarray:
    """[classes, templates, e] embeddings of every label in every template."""
    texts = sentences(labels, TEMPLATES)
    return embed_texts(texts, encoder).reshape(len(labels), len(TEMPLATES), -1)


def _classes(
    embedded: EmbeddedPairs,
    folds: Sequence[Fold],
    class_names: Mapping[str, str],
    prompts: np.ndarray,
) -> Classification | None:
    scores = evaluation.zero_shot(embedded, folds, prompts)
    groups = list(class_names)
    kept = [i for i, pair in enumerate(embedded.pairs) if pair.group in class_names]
    if not kept:
        return None
    labels = np.asarray([groups.index(embedded.pairs[i].group) for i in kept])
    names = tuple(class_names.values())
    return classification(names, labels, scores[np.asarray(kept)], skipped=embedded.skipped)


def _examples(embedded: EmbeddedPairs, fold: Fold, *, count: int) -> tuple[Prediction, ...]:
    """Explains the best caption of a few held-out images, at even distances in the order read."""
    rows = {(2 * i + 1) * len(fold.held_out) // (2 * count): None for i in range(count)}
    return tuple(_example(embedded, fold, row) for row in rows)


def _example(embedded: EmbeddedPairs, fold: Fold, row: int) -> Prediction:
    pair = embedded.pairs[fold.held_out[row]]
    scores = fold.model.score(fold.images[row : row + 1], fold.texts)[0]
    best_scores, best = (a.tolist() for a in rank(scores, top=min(3, scores.shape[0])))
    texts = [embedded.caption(caption) for caption in fold.captions[best]]
    own = embedded.owners[fold.captions[best]] == fold.held_out[row]
    return Prediction(
        pair.image,
        pair.captions[0],
        tuple(map(CaptionGuess, texts, best_scores, own.tolist())),
        _evidence(embedded, fold, row, best[0]),
    )


def _evidence(
    embedded: EmbeddedPairs, fold: Fold, image: int, text: int, *, top: int = 5
) -> tuple[Evidence, ...]:
    """The pairs behind the score of a held-out image and caption."""
    explanation = fold.model.explain(fold.images[image], fold.texts[text])
    slots, contributions = (a[:top].tolist() for a in explanation)
    pairs = [embedded.pairs[pair] for pair in fold.members[slots]]
    return tuple(
        Evidence(pair.image, pair.captions[0], contribution)
        for pair, contribution in zip(pairs, contributions, strict=True)
        if contribution
    )


def _searches(
    embedded: EmbeddedPairs, fold: Fold, queries: Sequence[str], sentences: np.ndarray
) -> tuple[Searched, ...]:
    """Finds held-out images from sentences."""
    texts = fold.model.represent(sentences, "text")
    scores, best = rank(fold.model.score(texts, fold.images), top=min(5, len(fold.held_out)))
    searches = []
    for query, rows, row_scores in zip(queries, best.tolist(), scores.tolist(), strict=True):
        pairs = [embedded.pairs[pair] for pair in fold.held_out[rows]]
        found = [
            FoundImage(pair.image, pair.captions[0], score)
            for pair, score in zip(pairs, row_scores, strict=True)
        ]
        searches.append(Searched(query, tuple(found)))
    return tuple(searches)
