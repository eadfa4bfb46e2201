"""From data through the encoders to embeddings: decoding in threads, fixed batches, progress."""

import collections
import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import tqdm
from jax import Array
from PIL import Image

from asif_jax.core.anchors import check_finite
from asif_jax.core.cosine import normalize
from asif_jax.data import Pair, Skipped, open_image
from asif_jax.encoders import Encoder

_BATCH = 32
_DECODING_THREADS = 4

T = TypeVar("T")
R = TypeVar("R")


class EmbeddedPairs(NamedTuple):
    """Pairs whose image could be read, with their embeddings.

    Attributes:
      pairs: n pairs.
      images: [n, d] float32.
      captions: [captions, e] float32, all captions of all pairs in order.
      owners: [captions] int, the pair of each caption.
      skipped: what could not be read, and why.
    """

    pairs: tuple[Pair, ...]
    images: np.ndarray
    captions: np.ndarray
    owners: np.ndarray
    skipped: tuple[Skipped, ...]

    def caption(self, index: int) -> str:
        """The caption in row `index` of `captions`."""
        owner = self.owners[index]
        return self.pairs[owner].captions[index - np.searchsorted(self.owners, owner)]

    def captions_by_pair(self) -> np.ndarray:
        """[n, captions, e] float32: the captions of each pair, then zeros."""
        return by_pair(self.captions, self.owners, len(self.pairs))

    def caption_means(self) -> np.ndarray:
        """[n, e] float32: one embedding a pair, the mean of its captions' unit embeddings."""
        return caption_means(self.captions, self.owners, len(self.pairs))


def caption_means(captions: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """One embedding a pair: the mean of its captions' unit embeddings.

    Args:
      captions: [captions, e] float32.
      owners: [captions] int, the pair of each caption.
      count: the number of pairs, each with a caption.

    Returns:
      [count, e] float32.
    """
    sums = np.zeros([count, captions.shape[-1]], np.float32)
    np.add.at(sums, owners, np.asarray(normalize(captions)))
    return sums / np.bincount(owners, minlength=count)[:, None]


def by_pair(captions: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """The embeddings of all captions, pair by pair.

    Args:
      captions: [captions, e] float32, in the order of their pairs.
      owners: [captions] int, the pair of each caption, ascending.
      count: the number of pairs.

    Returns:
      [count, most captions, e] float32, zero where a pair has fewer.
    """
    place = np.arange(len(owners)) - np.searchsorted(owners, owners)
    most = int(place.max()) + 1 if len(place) else 1
    found = np.zeros([count, most, captions.shape[-1]], np.float32)
    found[owners, place] = captions
    return found


def check_k(k: int | None, pairs: int) -> None:
    """Refuses a k that a number of pairs cannot serve, before any work is done.

    Args:
      k: similarities to keep, or None for the rule of thumb.
      pairs: the number of pairs.

    Raises:
      ValueError: k outside 1..pairs.
    """
    if k is not None and not 1 <= k <= pairs:
        raise ValueError(f"k must lie between 1 and the number of pairs: got k={k}, {pairs} pairs")


def embed_pairs(
    pairs: Sequence[Pair], image_encoder: Encoder, text_encoder: Encoder, *, progress: bool = True
) -> EmbeddedPairs:
    """Embeds both sides of every pair; a pair whose image cannot be read is skipped and named.

    Args:
      pairs: the pairs.
      image_encoder: encoder of the images.
      text_encoder: encoder of the captions.
      progress: show progress bars on stderr.

    Returns:
      The embedded pairs, in order.

    Raises:
      ValueError: no image could be read, or an encoder returned a non-finite value.
    """
    images, kept, skipped = embed_images(
        [pair.image for pair in pairs], image_encoder, progress=progress
    )
    readable = tuple(pairs[index] for index in kept)
    captions = [caption for pair in readable for caption in pair.captions]
    owners = np.repeat(np.arange(len(readable)), [len(pair.captions) for pair in readable])
    texts = embed_texts(captions, text_encoder, progress=progress)
    return EmbeddedPairs(readable, images, texts, owners, skipped)


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
    embeddings, kept, skipped = embed_opened(
        paths, open_image, encoder, place=lambda path: path, progress=progress
    )
    if not kept:
        first = f"; {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        raise ValueError(f"none of {len(paths)} images could be read{first}")
    return embeddings, kept, skipped


def embed_opened(
    items: Sequence[T],
    open_item: Callable[[T], Image.Image],
    encoder: Encoder,
    *,
    place: Callable[[T], Path],
    progress: bool = True,
) -> tuple[np.ndarray, list[int], tuple[Skipped, ...]]:
    """Embeds images that are opened one by one, in threads, leaving out those that cannot be.

    Args:
      items: what the images are known by.
      open_item: an item -> its image, or ValueError.
      encoder: an image encoder.
      place: an item -> what to call it.
      progress: show a progress bar on stderr.

    Returns:
      [m, d] float32 embeddings, the indices into `items` of the m images opened, and the others
      with the reason.

    Raises:
      ValueError: the encoder returned a non-finite value.
    """
    kept: list[int] = []
    skipped: list[Skipped] = []

    def prepare(item: T) -> np.ndarray | Skipped:
        try:
            return encoder.preprocess([open_item(item)])
        except ValueError as error:
            return Skipped(place(item), str(error).removeprefix(f"{place(item)}: "))

    def prepared() -> Iterator[np.ndarray]:
        for index, result in enumerate(in_threads(items, prepare)):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                kept.append(index)
                yield result

    def batches() -> Iterator[tuple[np.ndarray, int]]:
        size = _batch_size(len(items))
        for rows in batched(prepared(), size):
            yield np.concatenate(rows + rows[-1:] * (size - len(rows))), len(rows)

    with _bar(encoder, len(items), "image", progress) as bar:
        embeddings = encode(encoder, batches(), bar)
    check_finite(embeddings, name=f"{encoder.name} embeddings")
    return embeddings, kept, tuple(skipped)


def embed_texts(
    texts: Sequence[str],
    encoder: Encoder,
    *,
    batch: int | None = None,
    finite: bool = True,
    progress: bool = True,
) -> np.ndarray:
    """Embeds sentences, sorted by length so that a batch holds little padding.

    Args:
      texts: at least one sentence.
      encoder: a text encoder.
      batch: sentences to a batch; by default 32, or fewer for a few.
      finite: refuse embeddings that are not.
      progress: show a progress bar on stderr.

    Returns:
      [n, e] float32 embeddings, in the order of `texts`.

    Raises:
      ValueError: no text, or the encoder returned a non-finite value.
    """
    if not texts:
        raise ValueError("no text to embed")
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    size = batch or _batch_size(len(texts))

    def batches() -> Iterator[tuple[object, int]]:
        for rows in batched(order, size):
            full = [texts[index] for index in rows] + [""] * (size - len(rows))
            yield encoder.preprocess(full), len(rows)

    with _bar(encoder, len(texts), "text", progress) as bar:
        embeddings = encode(encoder, batches(), bar)
    if finite:
        check_finite(embeddings, name=f"{encoder.name} embeddings")
    result = np.empty_like(embeddings)
    result[order] = embeddings
    return result


def encode(
    encoder: Encoder, batches: Iterable[tuple[Any, int]], bar: tqdm.tqdm | None = None
) -> np.ndarray:
    """Runs an encoder over batches; the next is prepared while the device works on one.

    Args:
      encoder: any encoder.
      batches: the batch that `apply` takes, and how many of its rows count.
      bar: to move on by as many.

    Returns:
      [rows that count, d] float32.
    """
    apply = jax.jit(encoder.apply)
    results = [np.zeros([0, encoder.dimension], np.float32)]
    former: tuple[Array, int] | None = None

    def collect() -> None:
        if former is not None:
            array, count = former
            results.append(np.asarray(array, np.float32)[:count])
            if bar is not None:
                bar.update(count)

    for batch, count in batches:
        latter = apply(encoder.params, batch), count
        collect()
        former = latter
    collect()
    return np.concatenate(results)


def _bar(encoder: Encoder, total: int, unit: str, progress: bool) -> tqdm.tqdm:
    return tqdm.tqdm(total=total, disable=not progress, unit=unit, desc=encoder.name, leave=False)


def _batch_size(count: int) -> int:
    """The full batch, or for a few items the next power of two, so that shapes stay few."""
    return min(_BATCH, 1 << max(count - 1, 0).bit_length())


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cuts items into lists of a size; the last may be shorter.

    Args:
      items: what to cut.
      size: of a list.

    Yields:
      The lists.
    """
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def in_threads(
    items: Iterable[T], function: Callable[[T], R], *, ahead: int = 2 * _BATCH
) -> Iterator[R]:
    """Maps in threads, in order, only so far ahead of the consumer.

    Args:
      items: what to map.
      function: an item -> its result.
      ahead: how many results may wait to be consumed.

    Yields:
      The results.
    """
    iterator = iter(items)
    with concurrent.futures.ThreadPoolExecutor(max(_DECODING_THREADS, os.cpu_count() or 1)) as pool:
        pending = collections.deque(
            pool.submit(function, item) for item in itertools.islice(iterator, ahead)
        )
        try:
            while pending:
                yield pending.popleft().result()
                for item in itertools.islice(iterator, 1):
                    pending.append(pool.submit(function, item))
        finally:
            for waiting in pending:
                waiting.cancel()
