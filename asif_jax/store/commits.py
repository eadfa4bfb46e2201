"""Commits: every change of a store is one atomic transaction, and makes one version.

A row is written once and never moves: pairs are added after the last row and removed by a mask.
On a disk, writers wait for each other. In object storage they do not: what a commit read must still
be so when it lands, or the commit is refused; of two that would get in each other's way, one wins.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from jax.typing import ArrayLike

from asif_jax.core.anchors import check_finite, check_pairs
from asif_jax.core.cosine import normalize
from asif_jax.store.database import Store, open_arrays, row_count, write_log
from asif_jax.store.failures import CHANGED, StoreError, told
from asif_jax.store.layout import Settings, block_key, pack_settings
from asif_jax.store.locks import locked
from asif_jax.store.records import StoredPair, decode, encode
from asif_jax.store.snapshots import version_number


@dataclasses.dataclass
class Change:
    """A commit under way.

    Attributes:
      store: is the store.
      kv: is its database, within the transaction.
      rows: counts its rows.
      arrays: maps each modality to [rows, d] or [rows, captions, d] embeddings, within the
        transaction.
      live: is the mask of live rows, [rows] bool, within the transaction.
    """

    store: Store
    kv: ts.KvStore
    rows: int
    arrays: dict[str, ts.TensorStore]
    live: ts.TensorStore


@contextlib.contextmanager
def commit(store: Store, message: str, *, added: int = 0, removed: int = 0) -> Iterator[Change]:
    """Makes one version of all that happens inside.

    Args:
      store: an open store.
      message: what is done, for the log.
      added: pairs added.
      removed: pairs removed.

    Yields:
      The commit under way. It lands when the block ends, and an exception drops it.

    Raises:
      StoreError: another writer was first, the store was compacted, or it cannot be written.
    """
    transaction = ts.Transaction(atomic=True, repeatable_read=True)
    kv = store.kv.with_transaction(transaction)
    with told(store.url), locked(store.root):
        try:
            # A key that is there must not be read here unless it is written, too: when another
            # commit lands meanwhile, TensorStore 0.1.86 empties it.
            if kv.read("compacted").result().state == "value":
                raise StoreError("it is or was being compacted; compact it again, and open it anew")
            rows = row_count(store)
            yield Change(store, kv, rows, *_arrays(store, kv, rows))
            write_log(kv, message, added=added, removed=removed)
            transaction.commit_sync()
        except BaseException:
            transaction.abort()
            raise


def append(
    store: Store,
    embeddings: Mapping[str, ArrayLike],
    pairs: Sequence[StoredPair],
    *,
    message: str = "add",
) -> range:
    """Adds pairs after the last row, in one commit.

    Args:
      store: an open store.
      embeddings: modality -> [b, d] real and finite.
      pairs: what they were made of, b of them.
      message: for the log.

    Returns:
      Their rows.

    Raises:
      ValueError: shapes that do not fit the store, or non-finite values.
      StoreError: see `commit`.
    """
    units = unit_rows(store, embeddings, count=len(pairs))
    return exchange(store, (), units, pairs, message=message)


def remove(store: Store, rows: Sequence[int] | np.ndarray, *, message: str = "remove") -> None:
    """Removes pairs, in one commit. Their bytes stay until the store is compacted.

    Args:
      store: an open store.
      rows: [b] int, of live pairs; none makes no version.
      message: for the log.

    Raises:
      ValueError: rows that are no integers.
      StoreError: a row that is not live, or see `commit`.
    """
    rows = _distinct(rows)
    if not rows.size:
        return
    with commit(store, message, removed=len(rows)) as change:
        remove_rows(change, rows)


def replace(
    store: Store,
    rows: Sequence[int] | np.ndarray,
    embeddings: Mapping[str, ArrayLike],
    pairs: Sequence[StoredPair],
    *,
    message: str = "replace",
) -> range:
    """Removes pairs and adds others, in one commit.

    Args:
      store: an open store.
      rows: [r] int, of live pairs.
      embeddings: modality -> [b, d] real and finite.
      pairs: what the new ones were made of, b of them.
      message: for the log.

    Returns:
      The rows of the new pairs.

    Raises:
      ValueError: shapes that do not fit the store, non-finite values, or rows that are no integers.
      StoreError: a row that is not live, or see `commit`.
    """
    units = unit_rows(store, embeddings, count=len(pairs))
    return exchange(store, rows, units, pairs, message=message)


def exchange(
    store: Store,
    rows: Sequence[int] | np.ndarray,
    units: Mapping[str, np.ndarray],
    pairs: Sequence[StoredPair],
    *,
    message: str,
) -> range:
    """Removes pairs and adds others whose embeddings are as the store keeps them, in one commit.

    Args:
      store: an open store.
      rows: [r] int, of live pairs.
      units: modality -> [b, d] or [b, captions, d], from `unit_rows`.
      pairs: what the new ones were made of, b of them.
      message: for the log.

    Returns:
      The rows of the new pairs.

    Raises:
      ValueError: rows that are no integers.
      StoreError: a row that is not live, or see `commit`.
    """
    rows = _distinct(rows)
    with commit(store, message, added=len(pairs), removed=len(rows)) as change:
        remove_rows(change, rows)
        return append_rows(change, units, pairs)


def change_settings(store: Store, settings: Settings, *, message: str = "settings") -> None:
    """Changes the method or its settings, in one commit.

    Args:
      store: an open store.
      settings: the new ones.
      message: for the log.

    Raises:
      StoreError: see `commit`.
    """
    with commit(store, message) as change:
        change.kv.write("settings", pack_settings(settings)).result()


def name_version(store: Store, version: int, name: str) -> None:
    """Gives a version a name, in one commit.

    Args:
      store: an open store.
      version: the number of the version.
      name: the name, which may be in use for another version.

    Raises:
      StoreError: no such version, a name that could be taken for a number, or see `commit`.
    """
    if name.isdecimal() or "/" in name or not name.strip() or not name.isprintable():
        raise StoreError(f"{store.url}: {name!r} cannot be the name of a version")
    version = version_number(store, version)
    with commit(store, f"name version {version} {name}") as change:
        change.kv.write(f"names/{name}", str(version)).result()


def unit_rows(
    store: Store, embeddings: Mapping[str, ArrayLike], *, count: int
) -> dict[str, np.ndarray]:
    """Embeddings as a store keeps them: the bits that `anchors.create` would give.

    Args:
      store: an open store.
      embeddings: modality -> [b, d] real.
      count: how many pairs they belong to.

    Returns:
      modality -> [b, d] or [b, captions, d] unit vectors of the store's dtype.

    Raises:
      ValueError: shapes that do not fit the store, or non-finite values.
    """
    arrays = {modality: np.asarray(array) for modality, array in embeddings.items()}
    for modality in store.header.several:
        if modality in arrays and arrays[modality].ndim == 2:
            arrays[modality] = arrays[modality][:, None]
    shapes = {modality: array.shape for modality, array in arrays.items()}
    expected = {modality: (count, d) for modality, d in store.header.dimensions.items()}
    several = {m: ("captions",) for m in store.header.several}
    named = {m: (n, *several.get(m, ()), d) for m, (n, d) in expected.items()}
    outer = {m: (shape[0], *shape[1 + (m in several) :]) for m, shape in shapes.items() if shape}
    ranks = {m: len(shape) for m, shape in shapes.items()}
    if outer != expected or ranks != {m: len(shape) for m, shape in named.items()}:
        raise ValueError(f"{store.url} takes embeddings of shapes {named}: got {shapes}")
    check_pairs(shapes)
    dtype = jnp.dtype(store.header.dtype)
    units = {m: np.asarray(normalize(array).astype(dtype)) for m, array in arrays.items()}
    # Checked last: float64 may be finite and too large for float32.
    for modality, array in units.items():
        check_finite(array, name=f"{modality} embeddings")
    return units


def append_rows(
    change: Change, units: Mapping[str, np.ndarray], pairs: Sequence[StoredPair]
) -> range:
    """Adds pairs after the last row.

    Args:
      change: a commit under way.
      units: from `unit_rows`.
      pairs: what they were made of.

    Returns:
      Their rows.
    """
    rows = allot_rows(change, change.rows, len(pairs))
    write_rows(change, rows.start, units, pairs)
    return rows


def allot_rows(change: Change, first: int, count: int) -> range:
    """Makes room for rows after the last; no other commit can do so at the same time.

    Args:
      change: a commit under way.
      first: the first of the rows, at least `change.rows`.
      count: how many.

    Returns:
      The rows.
    """
    # Read within the transaction: if another writer allots rows meanwhile, this commit is refused.
    if int(change.kv.read("rows").result().value) != change.rows:
        raise StoreError(CHANGED)
    change.rows = first + count
    change.kv.write("rows", str(change.rows)).result()
    for name, array in change.arrays.items():
        bounds = [change.rows] + [None] * (array.rank - 1)
        resized = array.resize(exclusive_max=bounds, resize_metadata_only=True)
        change.arrays[name] = resized.result()
    resized = change.live.resize(exclusive_max=[change.rows], resize_metadata_only=True)
    change.live = resized.result()
    return range(first, change.rows)


def write_rows(
    change: Change,
    first: int,
    units: Mapping[str, np.ndarray],
    pairs: Sequence[StoredPair | None],
) -> None:
    """Writes pairs into rows that were allotted and never held any.

    Args:
      change: a commit under way.
      first: the first row.
      units: modality -> [b, d] or [b, captions, d], from `unit_rows`.
      pairs: b of them; None where there is none, which leaves its row without a pair.
    """
    span = slice(first, first + len(pairs))
    live = np.array([pair is not None for pair in pairs])
    pending = [change.live[span].write(live)]
    for modality, array in units.items():
        place = _with_room(change, modality, array.shape)[span]
        pending.append((place[:, : array.shape[1]] if array.ndim == 3 else place).write(array))
    _write_pairs(change, first, pairs)
    for written in pending:
        written.result()


def _with_room(change: Change, modality: str, shape: tuple[int, ...]) -> ts.TensorStore:
    """The array of a modality, grown if these pairs have more captions than any before."""
    array = change.arrays[modality]
    if len(shape) == 3 and shape[1] > array.shape[1]:
        bounds = [None, shape[1], None]
        grown = array.resize(exclusive_max=bounds, resize_metadata_only=True, expand_only=True)
        change.arrays[modality] = grown.result()
    return change.arrays[modality]


def remove_rows(change: Change, rows: np.ndarray) -> None:
    """Takes rows out of the mask.

    Args:
      change: a commit under way.
      rows: [b] int, distinct, of live pairs.

    Raises:
      StoreError: a row that is not live.
    """
    outside = rows[(rows < 0) | (rows >= change.rows)]
    if outside.size:
        raise StoreError(f"there is no row {outside[0]} among {change.rows}")
    if not rows.size:
        return
    alive = change.live[rows].read().result()
    if not alive.all():
        raise StoreError(f"row {rows[~alive][0]} holds no pair any more, or never did")
    change.live[rows].write(False).result()


def _arrays(
    store: Store, kv: ts.KvStore, rows: int
) -> tuple[dict[str, ts.TensorStore], ts.TensorStore]:
    """The arrays within a transaction, before which it was read how many rows they hold."""
    try:
        return open_arrays(kv, store.header, rows, store.context)
    except StoreError:
        if row_count(store) == rows:
            raise
        # Another writer landed between the two readings.
        raise StoreError(CHANGED) from None


def _distinct(rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Row numbers in order, each once."""
    found = np.asarray(rows)
    # A mask, say, would be taken for rows 0 and 1.
    if found.size and not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"rows must be integers: got {found.dtype}")
    return np.unique(found.astype(np.int64))


def _write_pairs(change: Change, first: int, pairs: Sequence[StoredPair | None]) -> None:
    """Writes what rows were made of, block by block; the outer two may hold others already."""
    chunk = change.store.header.chunk
    last = first + len(pairs)
    for block in range(first // chunk, -(-last // chunk)):
        start, stop = max(block * chunk, first), min((block + 1) * chunk, last)
        rows = list(pairs[start - first : stop - first])
        if len(rows) < chunk:
            # Rows on either side of these may have been written before: those of a job come late.
            found = change.kv.read(block_key(block)).result()
            former = decode(found.value) if found.state == "value" else []
            place = start - block * chunk
            former += [None] * (place - len(former))
            rows = former[:place] + rows + former[place + len(rows) :]
        change.kv.write(block_key(block), encode(rows)).result()
