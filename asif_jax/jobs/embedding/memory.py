"""Embeddings in memory: pairs, images or sentences of which there are not too many."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tqdm

from asif_jax.core.anchors import check_finite
from asif_jax.core.cosine import normalize
from asif_jax.data import Example, Pair, Skipped, open_image
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.encoding import (
    BATCH,
    encode_sentences,
    for_all_devices,
    on_all_devices,
)
from asif_jax.jobs.embedding.pipeline import EmbeddedPart, Inputs, Rows, embed_parts, inputs_of
from asif_jax.methods.statistics import pair_means

# What is held of images and sentences at once, before they are embedded.
_PART = 1024


class EmbeddedPairs(NamedTuple):
    """Pairs that could be read, with their embeddings.

    Attributes:
      pairs: holds n pairs.
      rows: maps each modality to the embeddings of all items of all pairs, in order.
      skipped: lists what could not be read, and why.
    """

    pairs: tuple[Pair, ...]
    rows: Mapping[str, Rows]
    skipped: tuple[Skipped, ...]

    @property
    def images(self) -> np.ndarray:
        """[n, d] float32: the embeddings of the images."""
        return self.rows["image"].embeddings

    @property
    def captions(self) -> np.ndarray:
        """[captions, e] float32: all captions of all pairs in order."""
        return self.rows["text"].embeddings

    @property
    def owners(self) -> np.ndarray:
        """[captions] int: the pair of each caption."""
        return self.rows["text"].owners

    def caption(self, index: int) -> str:
        """The caption in row `index` of `captions`."""
        owner = self.owners[index]
        return self.pairs[owner].captions[index - np.searchsorted(self.owners, owner)]

    def by_modality(self) -> dict[str, np.ndarray]:
        """Modality -> [n, d], or [n, several, d] for captions: the items of each pair."""
        count = len(self.pairs)
        several = {m for m, rows in self.rows.items() if len(rows.owners) > count} | {"text"}
        return {
            m: rows.by_example(count) if m in several else rows.embeddings
            for m, rows in self.rows.items()
        }

    def captions_by_pair(self) -> np.ndarray:
        """[n, captions, e] float32: the captions of each pair, then zeros."""
        return self.rows["text"].by_example(len(self.pairs))

    def caption_means(self) -> np.ndarray:
        """[n, e] float32: one embedding for each pair, the mean of its captions' unit vectors."""
        return np.asarray(pair_means(normalize(self.captions_by_pair())))


def embed_pairs(
    pairs: Sequence[Pair], encoders: Mapping[str, Encoder], *, progress: bool = True
) -> EmbeddedPairs:
    """Embeds all sides of every pair. A pair with a side that cannot be read is skipped and named.

    Args:
      pairs: the pairs.
      encoders: modality -> its encoder: "image" of the images, "text" of the captions, and any
        other of the items of that modality.
      progress: show a progress bar on stderr.

    Returns:
      The embedded pairs, in order.

    Raises:
      ValueError: no pair could be read, or an encoder returned a non-finite value.
    """

    def read(index: int) -> Inputs:
        pair = pairs[index]
        example = Example(open_image(pair.image), -1, pair.captions, dict(pair.items))
        return Inputs(inputs_of(example, encoders))

    places = [pair.image for pair in pairs]
    kept, rows, skipped = _embed_readable(places, read, encoders, progress)
    return EmbeddedPairs(tuple(pairs[index] for index in kept), rows, skipped)


def embed_images(
    paths: Sequence[Path], encoder: Encoder, *, progress: bool = True
) -> tuple[np.ndarray, list[int], tuple[Skipped, ...]]:
    """Embeds image files, leaving out those that cannot be read.

    Args:
      paths: image files.
      encoder: an image encoder.
      progress: show a progress bar on stderr.

    Returns:
      [m, d] float32 embeddings, the indices into `paths` of the m images read, and the others with
      the reason.

    Raises:
      ValueError: no image could be read, or the encoder returned a non-finite value.
    """

    def read(index: int) -> Inputs:
        return Inputs({"image": (open_image(paths[index]),)})

    kept, rows, skipped = _embed_readable(paths, read, {"image": encoder}, progress)
    return rows["image"].embeddings, kept, skipped


def embed_texts(texts: Sequence[str], encoder: Encoder, *, batch: int | None = None) -> np.ndarray:
    """Embeds sentences, sorted by length so that a batch holds little padding.

    Args:
      texts: at least one sentence.
      encoder: a text encoder.
      batch: how many sentences are encoded at once; by default 32, or fewer for a few.

    Returns:
      [n, e] float32 embeddings, in the order of `texts`.

    Raises:
      ValueError: no text, or the encoder returned a non-finite value.
    """
    if not texts:
        raise ValueError("no text to embed")
    embeddings = encode_sentences(texts, encoder, batch or _batch_size(len(texts)))
    check_finite(embeddings, name=f"{encoder.name} embeddings")
    return embeddings


def _embed_readable(
    places: Sequence[Path],
    read: Callable[[int], Inputs],
    encoders: Mapping[str, Encoder],
    progress: bool,
) -> tuple[list[int], dict[str, Rows], tuple[Skipped, ...]]:
    """Embeds what can be read: the numbers of those examples, their rows, and the others."""
    count = len(places)
    if count > BATCH:
        encoders = {m: on_all_devices(encoder) for m, encoder in encoders.items()}
    batch = for_all_devices(BATCH) if count > BATCH else _batch_size(count)
    parts = [range(start, min(start + _PART, count)) for start in range(0, count, _PART)]
    bar = tqdm.tqdm(total=count, disable=not progress, unit="pair", desc="embedding", leave=False)
    with bar:
        embedded = list(embed_parts(parts, read, encoders, batch=batch, bar=bar))
    skipped = tuple(
        Skipped(places[index], reason.removeprefix(f"{places[index]}: "))
        for part in embedded
        for index, reason in part.left_out.items()
    )
    kept = [index for part in embedded for index in part.kept]
    if not kept:
        first = f"; {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise ValueError(f"none of {count} images could be read{first}")
    rows = {m: _joined(embedded, m) for m in encoders}
    for modality, found in rows.items():
        check_finite(found.embeddings, name=f"{encoders[modality].name} embeddings")
    return kept, rows, skipped


def _joined(parts: Sequence[EmbeddedPart], modality: str) -> Rows:
    """The rows of all parts, their owners counted through."""
    starts = np.cumsum([0, *(len(part.kept) for part in parts)])
    owners = [
        start + part.rows[modality].owners for start, part in zip(starts, parts, strict=False)
    ]
    embeddings = [part.rows[modality].embeddings for part in parts]
    return Rows(np.concatenate(embeddings), np.concatenate(owners))


def _batch_size(count: int) -> int:
    """The full batch, or for a few items the next power of two, so that shapes stay few."""
    return min(BATCH, 1 << max(count - 1, 0).bit_length())
