"""Compaction: what was removed leaves every file, and so do the versions that held it.

The live pairs are copied into a new database; then the store's pointer moves to it in one step, and
the old one is deleted. A kill leaves the store as it was, or compacted.
"""

from typing import NamedTuple

import tensorstore as ts
import tqdm

from asif_jax.store.commits import append_rows, commit
from asif_jax.store.database import (
    Store,
    delete_database,
    delete_others,
    new_name,
    newest_generation,
    write_empty,
    write_log,
)
from asif_jax.store.failures import StoreError, told
from asif_jax.store.layout import Pointer, new_context, open_database, read_pointer, write_pointer
from asif_jax.store.locks import locked
from asif_jax.store.snapshots import Snapshot, live_parts, snapshot
from asif_jax.store.sums import FEWEST, write_sums

_ROWS = 1 << 14


class Compacted(NamedTuple):
    """What a compaction did.

    Attributes:
      store: is the store, opened anew.
      pairs: counts the pairs that were kept.
      rows: counts the rows that were dropped, which held removed pairs or none.
    """

    store: Store
    pairs: int
    rows: int


def compact(store: Store, *, sums_from: int = FEWEST, progress: bool = True) -> Compacted:
    """Rewrites a store without what was removed. Rows are numbered anew; older versions go.

    Args:
      store: an open store; open it anew wherever else it is open.
      sums_from: the number of live pairs from which their sums are kept, measured anew.
      progress: show a progress bar on stderr.

    Returns:
      The store and what was done.

    Raises:
      StoreError: another writer was first, or it cannot be written; the store is as it was then.
    """
    name = new_name()
    with told(store.url):
        pointer, former = read_pointer(store.root, store.url)
        if pointer != store.pointer:
            raise StoreError("another writer changed it meanwhile; open it anew")
        # From here on commits to it are refused; a compaction that was killed is not.
        _mark(store, name, "compaction begun")
        try:
            found = snapshot(store)
            compacted = _copy(store, found, name, sums_from=sums_from, progress=progress)
            write_pointer(store.root, compacted.pointer, former=former)
        except BaseException:
            delete_database(store.root, name)
            # Unless another compaction was first, and deletes it.
            if read_pointer(store.root, store.url)[0] == store.pointer:
                _mark(store, None, "compaction given up")
            raise
        delete_others(store.root, name)
    pairs = int(found.live.sum())
    return Compacted(compacted, pairs, len(found.live) - pairs)


def _mark(store: Store, name: str | None, message: str) -> None:
    """Says in a database which other it is compacted into, or that it is not."""
    with locked(store.root):
        transaction = ts.Transaction(atomic=True)
        kv = store.kv.with_transaction(transaction)
        kv.write("compacted", name).result()
        write_log(kv, message)
        transaction.commit_sync()


def _copy(store: Store, found: Snapshot, name: str, *, sums_from: int, progress: bool) -> Store:
    """A new database that holds the live pairs of a version."""
    context = new_context()
    kv = open_database(store.root, name, context)
    write_empty(kv, store.header, found.settings, context)
    new = Store(store.url, store.root, Pointer(name, 0, 0), store.header, kv, context)
    total = int(found.live.sum())
    message = f"compact: {total} pairs kept, {len(found.live) - total} rows dropped"
    with tqdm.tqdm(total=total, disable=not progress, unit="pair", desc="compacting") as bar:
        for units, pairs in live_parts(found, _ROWS):
            with commit(new, message) as change:
                append_rows(change, units, pairs)
            bar.update(len(pairs))
    write_sums(new, fewest=sums_from, message=message)
    first = found.version + 1
    offset = first - newest_generation(store.root, name)
    return new._replace(pointer=Pointer(name, offset, first))
