"""The versions of a store: what was done, and what differs."""

from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

from asif_jax.store.database import Store
from asif_jax.store.failures import told
from asif_jax.store.layout import open_database
from asif_jax.store.records import unpack
from asif_jax.store.snapshots import snapshot


class Version(NamedTuple):
    """One commit.

    Attributes:
      number: is that of the version.
      names: lists the names given to it.
      time: is that of the commit, in seconds since 1970.
      message: says what was done.
      added: counts the pairs added.
      removed: counts the pairs removed.
      pairs: counts the live pairs since.
    """

    number: int
    names: tuple[str, ...]
    time: float
    message: str
    added: int
    removed: int
    pairs: int


class Difference(NamedTuple):
    """What differs between two versions.

    Attributes:
      added: holds the [a] rows that are live in the latter alone.
      removed: holds the [r] rows that are live in the former alone.
    """

    added: np.ndarray
    removed: np.ndarray


def log(store: Store, *, limit: int | None = None) -> list[Version]:
    """The versions of a store, newest first.

    Args:
      store: an open store.
      limit: how many; by default all since the last compaction.

    Returns:
      The versions.

    Raises:
      StoreError: the store is damaged.
    """
    with told(store.url):
        newest = snapshot(store)
        names = _names(store)
        oldest = store.pointer.oldest
        if limit is not None:
            oldest = max(oldest, newest.version - limit + 1)
        pairs, versions = int(newest.live.sum()), []
        for number in range(newest.version, oldest - 1, -1):
            said = _said(store, number)
            versions.append(Version(number, names.get(number, ()), pairs=pairs, **said))
            pairs += said["removed"] - said["added"]
    return versions


def diff(store: Store, former: int | str, latter: int | str | None = None) -> Difference:
    """What differs between two versions.

    Args:
      store: an open store.
      former: a version, by number or name.
      latter: another; by default the newest.

    Returns:
      The rows. What was added and removed again in between is in neither.

    Raises:
      StoreError: no such version, or the store is damaged.
    """
    before, after = (snapshot(store, version).live for version in (former, latter))
    rows = max(len(before), len(after))
    before, after = (np.pad(live, (0, rows - len(live))) for live in (before, after))
    return Difference(np.flatnonzero(after & ~before), np.flatnonzero(before & ~after))


def _said(store: Store, number: int) -> dict[str, Any]:
    generation = number - store.pointer.offset
    database, context = store.pointer.database, store.context
    kv = open_database(store.root, database, context, generation=generation)
    return unpack(kv.read("log").result().value)


def _names(store: Store) -> dict[int, tuple[str, ...]]:
    """Version -> its names."""
    prefix = "names/"
    keys = store.kv.list(ts.KvStore.KeyRange(prefix, "names0"), len(prefix)).result()
    found: dict[int, tuple[str, ...]] = {}
    for name in sorted(key.decode() for key in keys):
        number = int(store.kv.read(prefix + name).result().value)
        found[number] = (*found.get(number, ()), name)
    return found
