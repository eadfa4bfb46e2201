"""From data through the encoders to embeddings: the one pipeline behind all sinks.

Examples are read and prepared in threads, encoded in batches on all devices, and come out part by
part. What becomes of a part is up to the sink: `memory`, `cache` or `into_store`.
"""

import collections
import concurrent.futures
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tqdm

from asif_jax.data import Example
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.encoding import BATCH, Stream, encode_sentences

_DECODING_THREADS = 4

# Sentences are prepared a batch at a time, because how far they are padded depends on the others
# in the batch. Inputs of every other modality are prepared one by one, in the threads.
_SENTENCES = "text"

T = TypeVar("T")
R = TypeVar("R")


class Inputs(NamedTuple):
    """What is to be embedded of one example.

    Attributes:
      items: maps each modality to the inputs of its encoder, one or several.
      known: is handed back beside the embeddings.
    """

    items: Mapping[str, Sequence[Any]]
    known: Any = None


class Rows(NamedTuple):
    """Embeddings of one modality.

    Attributes:
      embeddings: are [r, d] float32.
      owners: are [r] int, ascending: which example each row is of.
    """

    embeddings: np.ndarray
    owners: np.ndarray

    def by_example(self, count: int) -> np.ndarray:
        """[count, most rows, d] float32: the rows of each example, then zeros."""
        place = np.arange(len(self.owners)) - np.searchsorted(self.owners, self.owners)
        most = int(place.max()) + 1 if len(place) else 1
        found = np.zeros([count, most, self.embeddings.shape[-1]], np.float32)
        found[self.owners, place] = self.embeddings
        return found


class EmbeddedPart(NamedTuple):
    """A part of a set through the encoders.

    Attributes:
      span: holds the numbers of the examples.
      kept: lists the numbers of the m examples that were embedded.
      known: lists what the reader said of those.
      rows: maps each modality to embeddings; their owners count among the m. They may not be
        finite.
      left_out: maps the number of every other example to the reason.
    """

    span: range
    kept: list[int]
    known: list[Any]
    rows: Mapping[str, Rows]
    left_out: Mapping[int, str]


class Clock:
    """Adds up the seconds that were spent waiting for examples to be read and prepared."""

    def __init__(self):
        self.waited = 0.0

    def timed(self, items: Iterable[T]) -> Iterator[T]:
        """The same items."""
        iterator = iter(items)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - start
            yield item


def embed_parts(
    parts: Iterable[range],
    read: Callable[[int], Inputs],
    encoders: Mapping[str, Encoder],
    *,
    batch: int = BATCH,
    clock: Clock | None = None,
    bar: tqdm.tqdm | None = None,
) -> Iterator[EmbeddedPart]:
    """Embeds parts of a set, reading ahead of the encoders from one part into the next.

    Args:
      parts: the numbers of the examples of each part, none of them empty.
      read: returns what to embed of the example of a number, for every modality of `encoders`. It
        is called in threads, and raises ValueError with the reason to leave the example out.
      encoders: modality -> its encoder. An encoder's `preprocess` may raise ValueError or OSError
        to leave the example out. Except for sentences, it gives the same shape for every input.
      batch: how many inputs are encoded at once.
      clock: adds up the time spent waiting.
      bar: moves on by one for every example.

    Yields:
      The parts, in order.
    """
    clock = Clock() if clock is None else clock
    numbers = ((span, index) for span in parts for index in span)
    prepared = in_threads(numbers, lambda it: _prepared(*it, read, encoders), ahead=4 * batch)
    for _, examples in itertools.groupby(clock.timed(prepared), key=lambda it: it.span.start):
        yield _embed_part(examples, encoders, batch, bar)


def inputs_of(example: Example, encoders: Mapping[str, Encoder]) -> dict[str, Sequence[Any]]:
    """What an example of a set has for each of some encoders.

    Args:
      example: the example. Its image is of the modality "image", and its captions are of "text".
        A tuple or list among its items means several items, and anything else one.
      encoders: modality -> encoder.

    Returns:
      modality -> items.

    Raises:
      ValueError: the example has nothing of one of the modalities.
    """
    items: dict[str, Sequence[Any]] = {"image": (example.image,), "text": example.captions}
    for modality, item in example.items.items():
        items[modality] = item if isinstance(item, tuple | list) else (item,)
    for modality in encoders:
        if not items.get(modality):
            raise ValueError(f"no {modality}")
    return {modality: items[modality] for modality in encoders}


def in_threads(
    items: Iterable[T], function: Callable[[T], R], *, ahead: int = 2 * BATCH
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


class _Prepared(NamedTuple):
    """An example on its way: prepared inputs (sentences as they are), or why it is left out."""

    span: range
    number: int
    inputs: Mapping[str, Sequence[Any]] = {}
    known: Any = None
    reason: str = ""


def _prepared(
    span: range, number: int, read: Callable[[int], Inputs], encoders: Mapping[str, Encoder]
) -> _Prepared:
    """Reads and prepares one example, in a thread."""
    try:
        items, known = read(number)
        inputs = {m: _preprocessed(encoders[m], items[m], m) for m in encoders}
    except ValueError as error:
        return _Prepared(span, number, reason=str(error))
    return _Prepared(span, number, inputs, known)


def _preprocessed(encoder: Encoder, items: Sequence[Any], modality: str) -> Sequence[Any]:
    """Inputs as batches of one; sentences as they are."""
    if modality == _SENTENCES:
        return items
    try:
        return [encoder.preprocess([item]) for item in items]
    except OSError as error:
        raise ValueError(str(error)) from error


def _embed_part(
    examples: Iterable[_Prepared],
    encoders: Mapping[str, Encoder],
    batch: int,
    bar: tqdm.tqdm | None,
) -> EmbeddedPart:
    streams = {m: Stream(encoder, batch) for m, encoder in encoders.items()}
    sentences: list[str] = []
    owners: dict[str, list[int]] = {modality: [] for modality in encoders}
    kept, known, left_out, span = [], [], {}, range(0)
    for example in examples:
        span = example.span
        if bar is not None:
            bar.update()
        if example.reason:
            left_out[example.number] = example.reason
            continue
        for modality, inputs in example.inputs.items():
            owners[modality] += [len(kept)] * len(inputs)
            if modality == _SENTENCES:
                sentences += inputs
            else:
                # Pixels are let go of as soon as they are embedded.
                streams[modality].push(inputs)
        kept.append(example.number)
        known.append(example.known)
    found = {m: stream.finish() for m, stream in streams.items()}
    if _SENTENCES in encoders:
        found[_SENTENCES] = encode_sentences(sentences, encoders[_SENTENCES], batch)
    rows = {m: Rows(array, np.asarray(owners[m], np.int64)) for m, array in found.items()}
    return EmbeddedPart(span, kept, known, rows, left_out)
