"""The sums over a store's live pairs, kept beside them so that a large store opens sooner.

What is kept says which rows it is over. Rows that came or went since are read and added or
subtracted. A compaction measures the sums anew from what it keeps, so that nothing of a removed
pair stays in them.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from asif_jax import methods
from asif_jax.core.anchors import Anchors
from asif_jax.methods import Method
from asif_jax.methods.statistics import Sums, add
from asif_jax.model import changed_sums, rows_of
from asif_jax.store.commits import commit
from asif_jax.store.database import Store
from asif_jax.store.failures import told
from asif_jax.store.records import seal, unseal
from asif_jax.store.snapshots import Snapshot, read_rows, snapshot

# The number of live pairs from which measuring takes longer than reading.
FEWEST = 20_000

_KEY = "sums"
_ROWS = 1 << 14


class _Kept(NamedTuple):
    """Sums as a store keeps them.

    Attributes:
      version: is the number of the version that they were written after.
      method: names the method that measured them, with its settings, as JSON.
      live: is [rows] bool, the rows that they are over.
      sums: holds the sums, as NumPy arrays.
    """

    version: int
    method: str
    live: np.ndarray
    sums: Sums


def write_sums(store: Store, *, fewest: int = FEWEST, message: str = "sums") -> bool:
    """Keeps the sums over the live pairs of a store, in one commit.

    Args:
      store: an open store.
      fewest: nothing is written of fewer live pairs.
      message: for the log.

    Returns:
      Whether sums were written. They are not if the method needs none, or if those that are kept
      are over the same rows.

    Raises:
      StoreError: another writer was first, or the store cannot be written.
    """
    found = snapshot(store)
    if found.live.sum() < max(fewest, 1):
        return False
    method = methods.named(found.settings.method, found.settings.settings)
    kept = _read(found, method)
    if kept is not None and np.array_equal(_fitting(kept.live, found), found.live):
        return False
    sums = known_sums(found, method)
    sums = measured(found, method) if sums is None else sums
    if sums is None:
        return False
    with commit(store, message) as change:
        content = _pack(_Kept(found.version, _described(method), found.live, sums))
        change.kv.write(_KEY, content).result()
    return True


def known_sums(found: Snapshot, method: Method) -> Sums | None:
    """The sums over the live pairs of a version, from those that are kept and what changed since.

    Args:
      found: the version.
      method: the store's method.

    Returns:
      The sums, as NumPy arrays. None if none are kept, if they are of another method, or if so much
      has changed that measuring is as fast.

    Raises:
      StoreError: the version is damaged.
    """
    kept = _read(found, method)
    if kept is None:
        return None
    former = _fitting(kept.live, found)
    added = np.flatnonzero(found.live & ~former)
    removed = np.flatnonzero(former & ~found.live)
    if len(added) + len(removed) > found.live.sum() // 2:
        return None
    sums: Sums | None = kept.sums
    for name, rows in (("added", added), ("removed", removed)):
        for anchors in _anchors_of(found, rows):
            sums = sums and changed_sums(method, sums, **{name: anchors})
    return sums and jax.tree.map(np.asarray, sums)


def measured(found: Snapshot, method: Method) -> Sums | None:
    """The sums over the live pairs of a version, read some at a time.

    Args:
      found: the version, which has live pairs.
      method: the store's method.

    Returns:
      The sums, as NumPy arrays; None if the method needs none.

    Raises:
      StoreError: the version is damaged.
    """
    sums = _pass(found, method, None)
    if sums is None:
        return None
    first, last = sums
    # How pairs are measured depends on whether any has a negative entry. If the first ones did not
    # say so of all, a second pass does it right.
    if _signs(first) != _signs(last):
        _, last = _pass(found, method, last) or sums
    return jax.tree.map(np.asarray, last)


def _pass(found: Snapshot, method: Method, like: Sums | None) -> tuple[Sums, Sums] | None:
    """The sums over the first live pairs, and those over all."""
    first = last = None
    for anchors in _anchors_of(found, np.flatnonzero(found.live)):
        part = method.measure(anchors, first if like is None else like)
        if part is None:
            return None
        first = part if first is None else first
        last = part if last is None else add(last, part)
    return None if first is None or last is None else (first, last)


def _signs(sums: Sums) -> dict[str, bool]:
    return {modality: bool(count == 0) for modality, count in sums.negatives.items()}


def _anchors_of(found: Snapshot, rows: np.ndarray) -> Iterator[Anchors]:
    """Some rows of a version as pairs, not too many at a time."""
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        if part[-1] - part[0] < 2 * len(part):
            span = read_rows(found, range(int(part[0]), int(part[-1]) + 1))
            units = {m: array[part - part[0]] for m, array in span.items()}
        else:
            with told(found.url):
                units = {m: np.asarray(a[part].read().result()) for m, a in found.arrays.items()}
        anchors = rows_of(Anchors(units, np.ones(len(part), bool)), np.arange(len(part)))  # type: ignore
        if anchors is not None:
            yield anchors


def _fitting(live: np.ndarray, found: Snapshot) -> np.ndarray:
    """A mask of former rows, with as many rows as there are now."""
    return np.pad(live[: len(found.live)], (0, max(len(found.live) - len(live), 0)))


def _described(method: Method) -> str:
    return json.dumps([method.name, method.settings], sort_keys=True)


def _read(found: Snapshot, method: Method) -> _Kept | None:
    """What a version keeps, if it is of this method."""
    with told(f"{found.url}: the sums"):
        content = found.kv.read(_KEY).result()
        kept = _unpack(content.value) if content.state == "value" else None
    return kept if kept is not None and kept.method == _described(method) else None


def _pack(kept: _Kept) -> bytes:
    """A line of JSON that says what follows, the mask, and the arrays, behind a checksum."""
    leaves = list(_leaves(kept.sums._asdict()))
    mask = zlib.compress(np.packbits(kept.live).tobytes())
    about = {
        "version": kept.version,
        "method": kept.method,
        "rows": len(kept.live),
        "mask": len(mask),
        "arrays": [(path, array.shape) for path, array in leaves],
    }
    arrays = b"".join(array.astype("<f4").tobytes() for _, array in leaves)
    return seal(json.dumps(about).encode() + b"\n" + mask + arrays)


def _unpack(content: bytes) -> _Kept:
    line, _, rest = unseal(content).partition(b"\n")
    about = json.loads(line)
    bits = np.frombuffer(zlib.decompress(rest[: about["mask"]]), np.uint8)
    live = np.unpackbits(bits, count=about["rows"]).astype(bool)
    fields: dict[str, Any] = {name: {} for name in Sums._fields}
    place = about["mask"]
    for (*outer, last), shape in about["arrays"]:
        count = int(np.prod(shape, dtype=int))
        within = fields
        for name in outer:
            within = within.setdefault(name, {})
        within[last] = np.frombuffer(rest, "<f4", count, place).reshape(shape)
        place += 4 * count
    return _Kept(about["version"], about["method"], live, Sums(**fields))


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    if not isinstance(tree, Mapping):
        yield path, np.asarray(tree, np.float32)
        return
    for name in sorted(tree):
        yield from _leaves(tree[name], (*path, name))
