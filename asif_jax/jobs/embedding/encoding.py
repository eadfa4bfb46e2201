"""Batches through an encoder, on all devices; the next is prepared while the devices work."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from asif_jax.encoders import Encoder, sharded

BATCH = 32

T = TypeVar("T")


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
    stream = Stream(encoder, 0)
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


class Stream:
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
