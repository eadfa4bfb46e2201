"""How well a model does on pairs it has not seen: retrieval both ways and zero-shot classes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from asif_jax.core import anchors
from asif_jax.jobs.embedding.memory import EmbeddedPairs
from asif_jax.jobs.evaluate.retrieval import RECALLS, chance_recall, retrieval_ranks
from asif_jax.methods import Method
from asif_jax.model import Model, represent_classes, represented_class_scores
from asif_jax.model import create as create_model


class Fold(NamedTuple):
    """One model of a cross-validation and the pairs it has not seen.

    Attributes:
      model: of the other pairs.
      members: [n] int, the pair that each slot of the model holds.
      held_out: [h] int, the pairs it has not seen.
      captions: [c] int, their captions (rows of `EmbeddedPairs.captions`).
      images: representations of the held-out images.
      texts: representations of the held-out captions.
    """

    model: Model
    members: np.ndarray
    held_out: np.ndarray
    captions: np.ndarray
    images: Any
    texts: Any


class Recall(NamedTuple):
    """Recall@k of one direction of retrieval.

    Attributes:
      recall: k -> share of queries with a right answer among the first k.
      chance: k -> the same for a random order.
      median_rank: median rank of the first right answer, from 1.
    """

    recall: Mapping[int, float]
    chance: Mapping[int, float]
    median_rank: float


class Retrieval(NamedTuple):
    """Retrieval in both directions, averaged over folds."""

    image_to_text: Recall
    text_to_image: Recall


def cross_validation(
    embedded: EmbeddedPairs,
    *,
    method: Method,
    folds: int = 5,
    seed: int = 0,
) -> Iterator[Fold]:
    """Builds a model on all folds but one, for each fold in turn.

    Args:
      embedded: n embedded pairs.
      method: how pairs become scores.
      folds: how many parts the pairs are dealt into at random.
      seed: of the dealing.

    Yields:
      The folds.

    Raises:
      ValueError: fewer pairs than folds.
    """
    n = len(embedded.pairs)
    if n < folds:
        raise ValueError(f"{folds}-fold cross-validation needs at least {folds} pairs: got {n}")
    order = np.asarray(jax.random.permutation(jax.random.key(seed), n))
    sides = embedded.by_modality()
    for held_out in np.array_split(order, folds):
        held_out = np.sort(held_out)
        members = np.setdiff1d(order, held_out)
        pairs = anchors.create({m: array[members] for m, array in sides.items()})
        model = create_model(pairs, [embedded.pairs[i] for i in members], {}, method)
        captions = np.flatnonzero(np.isin(embedded.owners, held_out))
        yield Fold(
            model,
            members,
            held_out,
            captions,
            model.represent(embedded.images[held_out], "image"),
            model.represent(embedded.captions[captions], "text"),
        )


def retrieval(embedded: EmbeddedPairs, folds: Sequence[Fold]) -> Retrieval:
    """Recall@1, 5 and 10 among the held-out pairs of each fold, averaged over folds.

    An image with several captions counts as the field counts it: for image to text any of its
    captions is right, for text to image every caption is a query.

    Args:
      embedded: the pairs the folds were made of.
      folds: from `cross_validation`.

    Returns:
      Recall and median rank, both ways, with chance.
    """
    both: tuple[list[Recall], list[Recall]] = [], []
    for fold in folds:
        owners = embedded.owners[fold.captions]
        ranks = retrieval_ranks(fold.model, fold.images, fold.texts, fold.held_out, owners)
        captions = np.unique(owners, return_counts=True)[1]
        right = captions, np.ones(len(owners), int)
        items = len(owners), len(fold.held_out)
        for results, r, counts, among in zip(both, ranks, right, items, strict=True):
            results.append(
                Recall(
                    {k: float(np.mean(r <= k)) for k in RECALLS},
                    {k: chance_recall(counts, among, k=k) for k in RECALLS},
                    float(np.median(r)),
                )
            )
    return Retrieval(*map(_mean_recall, both))


def _mean_recall(results: Sequence[Recall]) -> Recall:
    return Recall(
        {k: float(np.mean([r.recall[k] for r in results])) for k in RECALLS},
        {k: float(np.mean([r.chance[k] for r in results])) for k in RECALLS},
        float(np.mean([r.median_rank for r in results])),
    )


def zero_shot(
    embedded: EmbeddedPairs, folds: Sequence[Fold], prompts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Names every pair's image by the model of the fold that has not seen it.

    Args:
      embedded: the n pairs the folds were made of.
      folds: from `cross_validation`.
      prompts: [classes, prompts, e] text embeddings; the best prompt of a class counts.

    Returns:
      [n] int, the class of each image, and [n, classes] float32, its scores.
    """
    scores = np.zeros([len(embedded.pairs), len(prompts)], np.float32)
    for fold in folds:
        classes = represent_classes(fold.model, prompts)
        scores[fold.held_out] = represented_class_scores(fold.model, fold.images, classes)
    return scores.argmax(axis=-1), scores
