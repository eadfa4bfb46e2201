"""Image-text retrieval on a captioned set: captions found from images, images from captions."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from asif_jax.core import metrics
from asif_jax.data import ImageSet, Skipped
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.cache import embed_sentences, embed_set
from asif_jax.jobs.evaluate.intervals import Figure, measure
from asif_jax.model import Model

RECALLS = (1, 5, 10)

# Scores held at once.
_SCORES = 2**25


class Direction(NamedTuple):
    """Retrieval in one direction.

    Attributes:
      queries: counts the queries.
      recall: maps k to the share of queries with a right answer among the first k.
      chance: maps k to the same for a random order.
      median_rank: is the median rank of the first right answer, from 1.
    """

    queries: int
    recall: Mapping[int, Figure]
    chance: Mapping[int, float]
    median_rank: Figure


class SetRetrieval(NamedTuple):
    """How well a model finds the captions and images of a set, or models those they have not seen.

    Attributes:
      images: counts the images.
      own: counts those of them that are among the model's own pairs.
      image_to_text: is of images as queries; any caption of an image is a right answer.
      text_to_image: is of captions as queries, every one of them.
      skipped: lists the images that could not be read.
    """

    images: int
    own: int
    image_to_text: Direction
    text_to_image: Direction
    skipped: tuple[Skipped, ...]

    @property
    def directions(self) -> dict[str, Direction]:
        """Both directions by their names."""
        return {"image_to_text": self.image_to_text, "text_to_image": self.text_to_image}


def retrieve_set(
    model: Model,
    images: ImageSet,
    encoders: Mapping[str, Encoder],
    *,
    cache: Path,
    progress: bool = True,
) -> SetRetrieval:
    """Finds the captions of every image of a set among all captions, and the other way round.

    Counted as in Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments", CVPR 2015, section 4.1:
    the rank of an image is that of its best placed caption. The images stay on disk; the sparse
    representations of all images and captions are in memory.

    Args:
      model: a model.
      images: a set of captions.
      encoders: modality -> the model's encoder of it, of "image" and "text".
      cache: a directory for embeddings, from which an interrupted run goes on.
      progress: show progress bars on stderr.

    Returns:
      The figures. Their intervals are those of other images: a resample takes an image with all
      its captions.

    Raises:
      ValueError: a set without captions, or no readable image.
    """
    if images.classes:
        raise ValueError(f"{images.source} has no captions to find")
    pairs = {pair.image for pair in model.pairs}
    represented, captions, skipped, own = [], [], list(images.skipped), 0
    for part in embed_set(images, encoders["image"], cache=cache, progress=progress):
        skipped.extend(part.skipped)
        if not part.captions:
            continue
        represented.append(model.represent(part.embeddings, "image"))
        captions.extend(part.captions)
        own += sum(images.reference(i) in pairs for i in part.indices.tolist())
    if not captions:
        raise ValueError(f"none of {images.size} images in {images.source} could be read")
    owners = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
    sentences = [text for texts in captions for text in texts]
    embeddings = embed_sentences(sentences, encoders["text"], cache=cache, progress=progress)
    to_text, to_image = retrieval_ranks(
        model,
        jax.tree.map(lambda *parts: np.concatenate(parts), *represented),
        model.represent(embeddings, "text"),
        np.arange(len(captions)),
        owners,
    )
    counts = np.bincount(owners)
    return SetRetrieval(
        images=len(captions),
        own=own,
        image_to_text=direction(to_text, np.arange(len(captions)), counts, len(owners)),
        text_to_image=direction(to_image, owners, np.ones(len(owners), int), len(captions)),
        skipped=tuple(skipped),
    )


def retrieval_ranks(
    model: Model,
    images: Any,
    texts: Any,
    image_ids: np.ndarray,
    text_ids: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank of the first right answer, both ways, with a bounded number of scores at once.

    Args:
      model: a model.
      images: representations of n images.
      texts: representations of c texts.
      image_ids: [n] int.
      text_ids: [c] int; a text is right for the image of the same number.

    Returns:
      [n] int32 ranks among the texts and [c] int32 ranks among the images, from 1.
    """
    return (
        _ranks(model, images, texts, image_ids, text_ids),
        _ranks(model, texts, images, text_ids, image_ids),
    )


def _ranks(
    model: Model,
    queries: Any,
    gallery: Any,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
) -> np.ndarray:
    block = max(1, _SCORES // len(gallery_ids))
    ranks = []
    for start in range(0, len(query_ids), block):
        part = jax.tree.map(lambda array, start=start: array[start : start + block], queries)
        relevant = query_ids[start : start + block, None] == gallery_ids[None, :]
        ranks.append(np.asarray(_best_rank(model.score(part, gallery), relevant)))
    return np.concatenate(ranks)


_best_rank = jax.jit(metrics.best_rank)


def chance_recall(right: np.ndarray, items: int | np.ndarray, *, k: int) -> float:
    """Recall@k of a random order.

    Args:
      right: [b] int, how many right answers each query has.
      items: how many items there are to find them among, for all queries or [b] for each.
      k: how many places count.

    Returns:
      1 - C(items - r, k) / C(items, k) for r right answers, averaged over queries.

    Example:
      >>> chance_recall(np.array([1, 1]), 4, k=1)
      0.25
    """
    both = np.stack(np.broadcast_arrays(right, items))
    kinds, counts = np.unique(both, axis=1, return_counts=True)

    def missed(right: int, items: int) -> float:
        drawn = min(k, items)
        return math.comb(items - right, drawn) / math.comb(items, drawn)

    miss = [missed(*kind) for kind in kinds.T.tolist()]
    return 1.0 - float(np.average(miss, weights=counts))


def direction(
    ranks: np.ndarray, images: np.ndarray, right: np.ndarray, items: int | np.ndarray
) -> Direction:
    """Figures from the ranks of queries.

    Args:
      ranks: [b] int, the rank of the first right answer of each query.
      images: [b] int, the image of each, ascending from 0 without gaps.
      right: [b] int, how many right answers each has.
      items: how many items there were to find them among, for all queries or [b] for each.

    Returns:
      The figures; their intervals are those of other images.
    """
    figures = measure(_recalls, _by_image(ranks, images))
    return Direction(
        queries=len(ranks),
        recall={k: figures[f"recall@{k}"] for k in RECALLS},
        chance={k: chance_recall(right, items, k=k) for k in RECALLS},
        median_rank=figures["median rank"],
    )


def _by_image(ranks: np.ndarray, images: np.ndarray) -> np.ndarray:
    """[n, most] float32: the ranks of an image's queries, which ascend in `images`; NaN beyond."""
    counts = np.bincount(images)
    rows = np.full([len(counts), counts.max()], np.nan, np.float32)
    rows[np.arange(counts.max()) < counts[:, None]] = ranks
    return rows


def _recalls(rows: Array) -> dict[str, Array]:
    known = ~jnp.isnan(rows)
    recalls = {f"recall@{k}": jnp.sum(rows <= k) / jnp.sum(known) for k in RECALLS}
    return recalls | {"median rank": jnp.nanmedian(rows)}
