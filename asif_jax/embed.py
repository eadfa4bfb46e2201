"""From data through the encoders to embeddings: decoding in threads, fixed batches, progress."""

import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np
import tqdm
from PIL import Image

from asif_jax import anchors
from asif_jax.anchors import check_finite
from asif_jax.cosine import normalize
from asif_jax.data import Pair, PairList, Skipped, open_image
from asif_jax.encoders import Encoder
from asif_jax.store import EncoderRecord, Model, StoredPair
from asif_jax.tuning import rule_of_thumb

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

    def caption_means(self) -> np.ndarray:
        """[n, e] float32: one embedding a pair, the mean of its captions' unit embeddings."""
        sums = np.zeros([len(self.pairs), self.captions.shape[-1]], np.float32)
        np.add.at(sums, self.owners, np.asarray(normalize(self.captions)))
        return sums / np.bincount(self.owners, minlength=len(self.pairs))[:, None]


def build_model(
    source: PairList,
    image_encoder: tuple[str, Encoder],
    text_encoder: tuple[str, Encoder],
    *,
    k: int | None = None,
    p: float | None = None,
    progress: bool = True,
) -> tuple[Model, tuple[Skipped, ...]]:
    """Embeds pairs and makes a model of them.

    Args:
      source: the pairs.
      image_encoder: the name or path the encoder was loaded by, and the encoder.
      text_encoder: likewise.
      k: similarities kept; by default by `tuning.rule_of_thumb`.
      p: exponent; by default likewise.
      progress: show progress bars on stderr.

    Returns:
      The model, and what was skipped.

    Raises:
      ValueError: no pair could be read, non-finite embeddings, or k outside 1..n.
    """
    check_k(k, len(source.pairs))
    embedded = embed_pairs(source.pairs, image_encoder[1], text_encoder[1], progress=progress)
    count = len(embedded.pairs)
    check_k(k, count)
    rule = rule_of_thumb(count)
    model = Model(
        anchors.create({"image": embedded.images, "text": embedded.caption_means()}),
        tuple(StoredPair(str(pair.image.resolve()), pair.captions) for pair in embedded.pairs),
        {
            encoder.modality: EncoderRecord(name, encoder.identity)
            for name, encoder in (image_encoder, text_encoder)
        },
        rule[0] if k is None else k,
        rule[1] if p is None else p,
    )
    return model, source.skipped + embedded.skipped


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
        for index, result in enumerate(_in_threads(items, prepare)):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                kept.append(index)
                yield result

    def batches() -> Iterator[tuple[np.ndarray, int]]:
        size = _batch_size(len(items))
        for rows in _batched(prepared(), size):
            yield np.concatenate(rows + rows[-1:] * (size - len(rows))), len(rows)

    embeddings = _run(encoder, batches(), total=len(items), progress=progress, unit="image")
    return embeddings, kept, tuple(skipped)


def embed_texts(texts: Sequence[str], encoder: Encoder, *, progress: bool = True) -> np.ndarray:
    """Embeds sentences, sorted by length so that a batch holds little padding.

    Args:
      texts: at least one sentence.
      encoder: a text encoder.
      progress: show a progress bar on stderr.

    Returns:
      [n, e] float32 embeddings, in the order of `texts`.

    Raises:
      ValueError: no text, or the encoder returned a non-finite value.
    """
    if not texts:
        raise ValueError("no text to embed")
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    size = _batch_size(len(texts))

    def batches() -> Iterator[tuple[object, int]]:
        for rows in _batched(order, size):
            full = [texts[index] for index in rows] + [""] * (size - len(rows))
            yield encoder.preprocess(full), len(rows)

    embeddings = _run(encoder, batches(), total=len(texts), progress=progress, unit="text")
    result = np.empty_like(embeddings)
    result[order] = embeddings
    return result


def _run(
    encoder: Encoder,
    batches: Iterable[tuple[object, int]],
    *,
    total: int,
    progress: bool,
    unit: str,
) -> np.ndarray:
    """Applies the encoder to (batch, rows that count) and stacks the rows, [n, d] float32."""
    apply = jax.jit(encoder.apply)
    results = [np.zeros([0, encoder.dimension], np.float32)]
    with tqdm.tqdm(
        total=total, disable=not progress, unit=unit, desc=encoder.name, leave=False
    ) as bar:
        for batch, count in batches:
            results.append(np.asarray(apply(encoder.params, batch), np.float32)[:count])
            bar.update(count)
    embeddings = np.concatenate(results)
    check_finite(embeddings, name=f"{encoder.name} embeddings")
    return embeddings


def _batch_size(count: int) -> int:
    """The full batch, or for a few items the next power of two, so that shapes stay few."""
    return min(_BATCH, 1 << max(count - 1, 0).bit_length())


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _in_threads(items: Sequence[T], function: Callable[[T], R]) -> Iterator[R]:
    """Maps in threads, in order, only a few batches ahead of the consumer."""
    with concurrent.futures.ThreadPoolExecutor(_DECODING_THREADS) as pool:
        pending = [pool.submit(function, item) for item in items[: 2 * _BATCH]]
        for following in itertools.chain(items[2 * _BATCH :], itertools.repeat(None)):
            if not pending:
                return
            yield pending.pop(0).result()
            if following is not None:
                pending.append(pool.submit(function, following))
