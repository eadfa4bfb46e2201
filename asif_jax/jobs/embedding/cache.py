"""Embeddings of sets of any size, kept on disk as they come: a rerun goes on from there."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tqdm

from asif_jax.core.anchors import check_finite
from asif_jax.data import ImageSet, Skipped
from asif_jax.data.image_set import fingerprint
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.encoding import BATCH, for_all_devices, on_all_devices
from asif_jax.jobs.embedding.parts_cache import Part, compute_parts, open_parts
from asif_jax.jobs.embedding.pipeline import EmbeddedPart, Inputs, embed_parts

# What an interruption can cost, and what is in memory of a set at once.
_PART = 256


class CachedPart(NamedTuple):
    """The images of one part of a set that could be read.

    Attributes:
      embeddings: are [m, d] float32.
      indices: are [m] int, their numbers in the set.
      labels: are [m] int, their classes, -1 in a set of captions.
      captions: holds the captions of each.
      skipped: lists the images that could not be read, and why.
    """

    embeddings: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    captions: tuple[tuple[str, ...], ...]
    skipped: tuple[Skipped, ...]


def embed_set(
    images: ImageSet, encoder: Encoder, *, cache: Path, progress: bool = True
) -> Iterator[CachedPart]:
    """Embeds the images of a set part by part on all devices, and keeps every part.

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

    def read(index: int) -> Inputs:
        place = images.place(index)
        try:
            example = images.read(index)
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{place}: ")) from error
        return Inputs({"image": (example.image,)}, (example.label, example.captions))

    def compute(parts: Iterable[range]) -> Iterator[Part]:
        everywhere, batch = {"image": on_all_devices(encoder)}, for_all_devices(BATCH)
        for part in embed_parts(parts, read, everywhere, batch=batch):
            yield _as_kept(part, images, encoder)

    job = f"images of {images.source} by {encoder.identity}"
    directory = open_parts(cache, job=job, identity=images.identity)
    with tqdm.tqdm(
        total=images.size, disable=not progress, unit="image", desc=encoder.name, leave=False
    ) as bar:
        for items, part in compute_parts(directory, images.size, _PART, compute):
            bar.update(len(items))
            yield CachedPart(
                **part.arrays,
                captions=tuple(map(tuple, part.notes["captions"])),
                skipped=tuple(Skipped(Path(p), reason) for p, reason in part.notes["skipped"]),
            )


def embed_sentences(
    texts: Sequence[str], encoder: Encoder, *, cache: Path, progress: bool = True
) -> np.ndarray:
    """Embeds sentences part by part on all devices, and keeps every part.

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

    def read(index: int) -> Inputs:
        return Inputs({"text": (texts[index],)})

    def compute(parts: Iterable[range]) -> Iterator[Part]:
        everywhere, batch = {"text": on_all_devices(encoder)}, for_all_devices(BATCH)
        for part in embed_parts(parts, read, everywhere, batch=batch):
            yield Part({"embeddings": _finite(part, "text", encoder)})

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


def _as_kept(part: EmbeddedPart, images: ImageSet, encoder: Encoder) -> Part:
    """A part of a set as it is written to disk."""
    arrays = {
        "embeddings": _finite(part, "image", encoder),
        "indices": np.asarray(part.kept, np.int64),
        "labels": np.asarray([label for label, _ in part.known], np.int32),
    }
    left_out = [(str(images.place(index)), why) for index, why in part.left_out.items()]
    notes = {"captions": [captions for _, captions in part.known], "skipped": left_out}
    return Part(arrays, notes, whole=not left_out)


def _finite(part: EmbeddedPart, modality: str, encoder: Encoder) -> np.ndarray:
    embeddings = part.rows[modality].embeddings
    check_finite(embeddings, name=f"{encoder.name} embeddings")
    return embeddings
