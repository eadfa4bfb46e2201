"""Sets of any size through the encoders, kept on disk as they come: a rerun goes on from there."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tqdm
from PIL import Image

from asif_jax.data import ImageSet, Skipped
from asif_jax.data.image_set import fingerprint
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.embed import embed_opened, embed_texts
from asif_jax.jobs.embedding.parts_cache import Part, compute_parts, open_parts

# What an interruption can cost, and what is in memory of a set at once.
_PART = 256


class EmbeddedPart(NamedTuple):
    """The images of one part of a set that could be read.

    Attributes:
      embeddings: [m, d] float32.
      indices: [m] int, their numbers in the set.
      labels: [m] int, their classes, -1 in a set of captions.
      captions: the captions of each.
      skipped: the images that could not be read, and why.
    """

    embeddings: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    skipped: tuple[Skipped, ...]


def embed_set(
    images: ImageSet, encoder: Encoder, *, cache: Path, progress: bool = True
) -> Iterator[EmbeddedPart]:
    """Embeds a set part by part, and keeps every part.

    Args:
      images: the set.
      encoder: an image encoder.
      cache: a directory for embeddings. They are used again for the same set and encoder, and
        computed anew, with a warning, if the set has changed.
      progress: show a progress bar on stderr.

    Yields:
      The parts, in order.

    Raises:
      ValueError: the encoder returned a non-finite value.
      OSError: the cache cannot be written.
    """

    def compute(items: range) -> Part:
        known: dict[int, tuple[int, tuple[str, ...]]] = {}

        def open_item(index: int) -> Image.Image:
            example = images.read(index)
            known[index] = example.label, example.captions
            return example.image

        embeddings, kept, skipped = embed_opened(
            items, open_item, encoder, place=images.place, progress=False
        )
        indices = [items[row] for row in kept]
        arrays = {
            "embeddings": embeddings,
            "indices": np.asarray(indices, np.int64),
            "labels": np.asarray([known[index][0] for index in indices], np.int32),
        }
        notes = {
            "captions": [known[index][1] for index in indices],
            "skipped": [(str(item.path), item.reason) for item in skipped],
        }
        return Part(arrays, notes, whole=not skipped)

    job = f"images of {images.source} by {encoder.identity}"
    directory = open_parts(cache, job=job, identity=images.identity)
    with tqdm.tqdm(
        total=images.size, disable=not progress, unit="image", desc=encoder.name, leave=False
    ) as bar:
        for items, part in compute_parts(directory, images.size, _PART, compute):
            bar.update(len(items))
            yield EmbeddedPart(
                **part.arrays,
                captions=tuple(map(tuple, part.notes["captions"])),
                skipped=tuple(Skipped(Path(p), reason) for p, reason in part.notes["skipped"]),
            )


def embed_sentences(
    texts: Sequence[str], encoder: Encoder, *, cache: Path, progress: bool = True
) -> np.ndarray:
    """Embeds sentences part by part, and keeps every part.

    Args:
      texts: at least one sentence.
      encoder: a text encoder.
      cache: a directory for embeddings; they are used again for the same sentences and encoder.
      progress: show a progress bar on stderr.

    Returns:
      [n, e] float32 embeddings.

    Raises:
      ValueError: no text, or the encoder returned a non-finite value.
      OSError: the cache cannot be written.
    """
    if not texts:
        raise ValueError("no text to embed")

    def compute(items: range) -> Part:
        part = texts[items.start : items.stop]
        return Part({"embeddings": embed_texts(part, encoder, progress=False)})

    identity = fingerprint([texts])
    job = f"texts {identity} by {encoder.identity}"
    directory = open_parts(cache, job=job, identity=identity)
    embeddings = np.empty([len(texts), encoder.dimension], np.float32)
    with tqdm.tqdm(
        total=len(texts), disable=not progress, unit="text", desc=encoder.name, leave=False
    ) as bar:
        for items, part in compute_parts(directory, len(texts), _PART, compute):
            embeddings[items.start : items.stop] = part.arrays["embeddings"]
            bar.update(len(items))
    return embeddings
