"""How well a model does on pairs it has not seen: retrieval both ways and zero-shot classes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from asif_jax.core import anchors
from asif_jax.jobs.embedding.memory import EmbeddedPairs
from asif_jax.jobs.evaluate.retrieval import (
    Direction,
    SetRetrieval,
    direction,
    retrieval_ranks,
)
from asif_jax.methods import Method
from asif_jax.model import Model, represent_classes, represented_class_scores
from asif_jax.model import create as create_model


class Fold(NamedTuple):
    """One model of a cross-validation and the pairs it has not seen.

    Attributes:
      model: is that of the other pairs.
      members: are [n] int, the pair that each slot of the model holds.
      held_out: are [h] int, the pairs it has not seen.
      captions: are [c] int, their captions (rows of `EmbeddedPairs.captions`).
      images: holds representations of the held-out images.
      texts: holds representations of the held-out captions.
    """

    model: Model
    members: np.ndarray
    held_out: np.ndarray
    captions: np.ndarray
    images: Any
    texts: Any


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


def retrieval(embedded: EmbeddedPairs, folds: Sequence[Fold]) -> SetRetrieval:
    """Recall@1, 5 and 10 of all pairs, each among the held-out pairs of its fold.

    An image with several captions counts as the field counts it: for image to text any of its
    captions is right, for text to image every caption is a query.

    Args:
      embedded: the pairs the folds were made of.
      folds: from `cross_validation`.

    Returns:
      Recall and median rank, both ways, with chance and intervals.
    """
    both: tuple[list[_Queries], list[_Queries]] = [], []
    for fold in folds:
        owners = embedded.owners[fold.captions]
        ranks = retrieval_ranks(fold.model, fold.images, fold.texts, fold.held_out, owners)
        captions = np.unique(owners, return_counts=True)[1]
        both[0].append(_Queries(ranks[0], fold.held_out, captions, len(owners)))
        both[1].append(_Queries(ranks[1], owners, np.ones(len(owners), int), len(fold.held_out)))
    directions = map(_direction, both)
    return SetRetrieval(len(embedded.pairs), 0, *directions, skipped=embedded.skipped)


class _Queries(NamedTuple):
    """The queries of one fold: their ranks, images and right answers, and the items searched."""

    ranks: np.ndarray
    images: np.ndarray
    right: np.ndarray
    items: int


def _direction(folds: Sequence[_Queries]) -> Direction:
    """Figures over the queries of all folds, in the order of their images."""
    ranks, images, right = (np.concatenate(parts) for parts in list(zip(*folds, strict=True))[:3])
    items = np.repeat([fold.items for fold in folds], [len(fold.ranks) for fold in folds])
    order = np.argsort(images, kind="stable")
    return direction(ranks[order], images[order], right[order], items[order])


def zero_shot(embedded: EmbeddedPairs, folds: Sequence[Fold], prompts: np.ndarray) -> np.ndarray:
    """Scores every pair's image for classes by the model of the fold that has not seen it.

    Args:
      embedded: the n pairs the folds were made of.
      folds: from `cross_validation`.
      prompts: [classes, prompts, e] text embeddings; the best prompt of a class counts.

    Returns:
      [n, classes] float32 scores.
    """
    scores = np.zeros([len(embedded.pairs), len(prompts)], np.float32)
    for fold in folds:
        classes = represent_classes(fold.model, prompts)
        scores[fold.held_out] = represented_class_scores(fold.model, fold.images, classes)
    return scores
