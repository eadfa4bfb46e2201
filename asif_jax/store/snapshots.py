"""One version of a store, to read."""

import fnmatch
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, overload

import numpy as np
import tensorstore as ts

from asif_jax.store.database import Store, newest_generation, open_arrays
from asif_jax.store.failures import StoreError, told
from asif_jax.store.layout import Header, Settings, block_key, open_database, unpack_settings
from asif_jax.store.records import StoredPair, decode

_BLOCKS_CACHED = 64


class Snapshot(NamedTuple):
    """One version of a store, to read.

    Attributes:
      url: says where the store is.
      version: is the number of the version.
      header: holds what never changes.
      settings: holds the method and its settings.
      live: is [rows] bool, false where a row was removed or never held a pair.
      arrays: maps each modality to [rows, d] or [rows, captions, d] embeddings, read on demand.
      kv: holds all else.
    """

    url: str
    version: int
    header: Header
    settings: Settings
    live: np.ndarray
    arrays: Mapping[str, ts.TensorStore]
    kv: ts.KvStore


def snapshot(store: Store, version: int | str | None = None) -> Snapshot:
    """Opens one version, to read.

    Args:
      store: an open store.
      version: its number or name; by default the newest.

    Returns:
      The version. It stays what it is, whatever is committed later, until the store is compacted.

    Raises:
      StoreError: no such version, or it is damaged.
    """
    with told(store.url):
        number = version_number(store, version)
        generation = number - store.pointer.offset
        database, context = store.pointer.database, store.context
        kv = open_database(store.root, database, context, generation=generation)
        settings = unpack_settings(kv.read("settings").result().value)
        arrays, mask = open_arrays(kv, store.header, int(kv.read("rows").result().value), context)
        live = np.asarray(mask.read().result())
    return Snapshot(store.url, number, store.header, settings, live, arrays, kv)


def version_number(store: Store, version: int | str | None = None) -> int:
    """The number of a version.

    Args:
      store: an open store.
      version: its number or name; by default the newest.

    Raises:
      StoreError: no such version.
    """
    newest = store.pointer.offset + newest_generation(store.root, store.pointer.database)
    if version is None:
        return newest
    if isinstance(version, str):
        named = store.kv.read(f"names/{version}".encode("utf-8", "replace")).result()
        if named.state != "value" and not version.isdecimal():
            raise StoreError(f"{store.url} has no version named {version!r}")
        version = int(named.value if named.state == "value" else version)
    oldest = store.pointer.oldest
    if not oldest <= version <= newest:
        raise StoreError(f"{store.url} has versions {oldest} to {newest}, not {version}")
    return version


def read_block(snapshot: Snapshot, block: int) -> list[StoredPair | None]:
    """What the rows of one chunk were made of.

    Args:
      snapshot: a version.
      block: the number of the chunk; its first row is block * chunk.

    Returns:
      The pairs, None where a row never held one; rows at the end may be missing.

    Raises:
      StoreError: the block is damaged.
    """
    with told(f"{snapshot.url}: captions of rows {block * snapshot.header.chunk} and on"):
        found = snapshot.kv.read(block_key(block)).result()
        return decode(found.value) if found.state == "value" else []


def read_rows(snapshot: Snapshot, rows: range) -> dict[str, np.ndarray]:
    """The embeddings of neighbouring rows.

    Args:
      snapshot: a version.
      rows: which.

    Returns:
      modality -> [b, d] or [b, captions, d] unit vectors of the store's dtype.

    Raises:
      StoreError: they are damaged.
    """
    with told(f"{snapshot.url}: embeddings of rows {rows.start} to {rows.stop - 1}"):
        read = {m: array[rows.start : rows.stop].read() for m, array in snapshot.arrays.items()}
        return {modality: np.asarray(array.result()) for modality, array in read.items()}


class StoredPairs(Sequence[StoredPair]):
    """What the live rows of a version were made of, read when asked for.

    Args:
      snapshot: the version.
    """

    def __init__(self, snapshot: Snapshot):
        self.snapshot = snapshot
        self.rows = np.flatnonzero(snapshot.live)
        self._block = functools.lru_cache(_BLOCKS_CACHED)(functools.partial(read_block, snapshot))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> StoredPair: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[StoredPair, ...]: ...

    def __getitem__(self, index: int | slice) -> StoredPair | tuple[StoredPair, ...]:
        if isinstance(index, slice):
            return tuple(map(self.at, self.rows[index].tolist()))
        return self.at(int(self.rows[index]))

    def at(self, row: int) -> StoredPair:
        """The pair of a row, live or removed."""
        block, place = divmod(row, self.snapshot.header.chunk)
        rows = self._block(block)
        pair = rows[place] if place < len(rows) else None
        if pair is None:
            raise StoreError(f"{self.snapshot.url}: damaged: row {row} is live but holds no pair")
        return pair


def live_parts(
    snapshot: Snapshot, size: int
) -> Iterator[tuple[dict[str, np.ndarray], tuple[StoredPair, ...]]]:
    """The live pairs of a version, some at a time.

    Args:
      snapshot: the version.
      size: pairs at a time.

    Yields:
      modality -> [b, d] unit vectors, and the b pairs, in order.

    Raises:
      StoreError: the version is damaged.
    """
    pairs = StoredPairs(snapshot)
    for start in range(0, len(pairs), size):
        rows = pairs.rows[start : start + size]
        read = read_rows(snapshot, range(int(rows[0]), int(rows[-1]) + 1))
        units = {modality: array[rows - rows[0]] for modality, array in read.items()}
        yield units, pairs[start : start + size]


def matching_rows(
    snapshot: Snapshot, *, images: Sequence[str] = (), captions: Sequence[str] = ()
) -> list[int]:
    """The live rows whose pairs are of certain images, or have certain words in a caption.

    Args:
      snapshot: the version.
      images: references, or patterns of them with * and ?.
      captions: parts of captions, upper and lower case alike.

    Returns:
      The rows that match any, in order.

    Raises:
      StoreError: the version is damaged.
    """
    patterns = [re.compile(fnmatch.translate(image)) for image in images]
    words = [caption.casefold() for caption in captions]

    def matches(pair: StoredPair) -> bool:
        said = "\n".join(pair.captions).casefold()
        return any(word in said for word in words) or any(p.match(pair.image) for p in patterns)

    pairs = StoredPairs(snapshot)
    return [int(row) for row, pair in zip(pairs.rows, pairs, strict=True) if matches(pair)]
