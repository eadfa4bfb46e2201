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

import jax
import numpy as np
import tqdm
from jax import Array
from jax.sharding import Mesh

from asif_jax.data import Example
from asif_jax.encoders import Encoder, sharded

BATCH = 32
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


def on_all_devices(encoder: Encoder) -> Encoder:
    """Spreads an encoder over all devices of this process.

    Args:
      encoder: any encoder.

    Returns:
      The encoder, which splits its batches; the same one where there is a single device.
    """
    devices = jax.local_devices()
    if len(devices) == 1:
        return encoder
    return sharded(encoder, mesh=Mesh(np.array(devices), ("data",)), axis="data")


def for_all_devices(batch: int) -> int:
    """Rounds the size of a batch up to a multiple of the devices of this process."""
    return batch + -batch % jax.local_device_count()


def encode_sentences(texts: Sequence[str], encoder: Encoder, batch: int) -> np.ndarray:
    """Embeds sentences, sorted by length so that a batch holds little padding.

    Args:
      texts: the sentences.
      encoder: a text encoder.
      batch: how many sentences are encoded at once.

    Returns:
      [n, e] float32 embeddings, in the order of `texts`.
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))

    def batches() -> Iterator[tuple[Any, int]]:
        for rows in batched(order, batch):
            full = [texts[index] for index in rows] + [""] * (batch - len(rows))
            yield encoder.preprocess(full), len(rows)

    embeddings = encode(encoder, batches())
    result = np.empty_like(embeddings)
    result[order] = embeddings
    return result


def encode(encoder: Encoder, batches: Iterable[tuple[Any, int]]) -> np.ndarray:
    """Runs an encoder over batches; the next is prepared while the device works on one.

    Args:
      encoder: any encoder.
      batches: the batch that `apply` takes, and how many of its rows count.

    Returns:
      [rows that count, d] float32.
    """
    stream = _Stream(encoder, 0)
    for batch, count in batches:
        stream.run(batch, count)
    return stream.finish()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cuts items into lists of one size; the last may be shorter.

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
    streams = {m: _Stream(encoder, batch) for m, encoder in encoders.items()}
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


class _Stream:
    """Inputs on their way through an encoder; one batch is gathered while the device has another.

    Args:
      encoder: any encoder.
      batch: how many inputs are encoded at once.
    """

    def __init__(self, encoder: Encoder, batch: int):
        self._encoder, self._batch = encoder, batch
        self._apply = jax.jit(encoder.apply)
        self._gathered: list[Any] = []
        self._running: tuple[Array, int] | None = None
        self._done = [np.zeros([0, encoder.dimension], np.float32)]

    def push(self, inputs: Iterable[Any]) -> None:
        """Takes prepared inputs, each a batch of one."""
        for item in inputs:
            self._gathered.append(item)
            if len(self._gathered) == self._batch:
                self._send()

    def run(self, batch: Any, count: int) -> None:
        """Encodes a batch of which so many rows count."""
        latter = self._apply(self._encoder.params, batch), count
        self._collect()
        self._running = latter

    def finish(self) -> np.ndarray:
        """[r, d] float32 embeddings of all that came."""
        if self._gathered:
            self._send()
        self._collect()
        return np.concatenate(self._done)

    def _send(self) -> None:
        rows, self._gathered = self._gathered, []
        full = rows + rows[-1:] * (self._batch - len(rows))
        self.run(jax.tree.map(lambda *parts: np.concatenate(parts), *full), len(rows))

    def _collect(self) -> None:
        if self._running is not None:
            array, count = self._running
            self._done.append(np.asarray(array, np.float32)[:count])
            self._running = None
