"""A model that serves, and the store it came from: edited in one call, for the next query to see.

The model comes from `store.open_anchors`, with a capacity that leaves room: slot i is row i of the
store. An edit is committed first and then written into the model's own memory, so that nothing is
copied, recompiled or embedded again. The model given is used up.
"""

from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import ArrayLike

from asif_jax import store
from asif_jax.core import in_place
from asif_jax.core.anchors import Anchors
from asif_jax.store import Store, StoredPair
from asif_jax.store.commits import exchange, unit_rows

_ROWS = 1 << 14


def insert(
    opened: Store,
    anchors: Anchors,
    embeddings: Mapping[str, ArrayLike],
    pairs: Sequence[StoredPair],
    *,
    message: str = "add",
) -> tuple[Anchors, range]:
    """Adds pairs to a store and to the model that serves from it.

    With several processes, all call this with the same arguments, and the first one commits.

    Args:
      opened: the store.
      anchors: the model, from `store.open_anchors`; used up.
      embeddings: modality -> [b, d] real and finite.
      pairs: what they were made of, b of them.
      message: for the log.

    Returns:
      The model with the pairs, and their slots, which are their rows.

    Raises:
      ValueError: shapes that do not fit, non-finite values, or too small a capacity; the model and
        the store are as they were then, and the model can still be used.
      StoreError: another writer was first, or the store cannot be written; likewise.
    """
    return replace(opened, anchors, (), embeddings, pairs, message=message)


def remove(
    opened: Store, anchors: Anchors, rows: Sequence[int] | np.ndarray, *, message: str = "remove"
) -> Anchors:
    """Removes pairs from a store and from the model that serves from it.

    Args:
      opened: the store.
      anchors: the model, from `store.open_anchors`; used up.
      rows: [b] int, of live pairs.
      message: for the log.

    Returns:
      The model without the pairs.

    Raises:
      StoreError: as for `insert`, or a row that is not live.
    """
    if jax.process_index() == 0:
        store.remove(opened, rows, message=message)
    return in_place.clear(anchors, rows)


def replace(
    opened: Store,
    anchors: Anchors,
    rows: Sequence[int] | np.ndarray,
    embeddings: Mapping[str, ArrayLike],
    pairs: Sequence[StoredPair],
    *,
    message: str = "replace",
) -> tuple[Anchors, range]:
    """Removes pairs and adds others, in one commit, from and to a store and a model.

    Args:
      opened: the store.
      anchors: the model, from `store.open_anchors`; used up.
      rows: [r] int, of live pairs to remove.
      embeddings: modality -> [b, d] real and finite.
      pairs: what the new ones were made of, b of them.
      message: for the log.

    Returns:
      The model, and the slots of the new pairs, which are their rows.

    Raises:
      ValueError: as for `insert`.
      StoreError: as for `insert`, or a row that is not live.
    """
    units = unit_rows(opened, embeddings, count=len(pairs))
    room = anchors.capacity - store.row_count(opened)
    if len(pairs) > room:
        raise ValueError(f"{len(pairs)} pairs do not fit into the {room} slots that are left")
    added = None
    if jax.process_index() == 0:
        added = exchange(opened, rows, units, pairs, message=message)
    first = _from_the_first_process(-1 if added is None else added.start)
    anchors = in_place.clear(anchors, rows)
    anchors = in_place.overwrite(anchors, first, units, np.ones(len(pairs), bool))
    return anchors, range(first, first + len(pairs))


def update(
    opened: Store, anchors: Anchors, former: int | str, latter: int | str | None = None
) -> tuple[Anchors, int]:
    """Brings a model to another version of its store: what others have added and removed since.

    Only what differs is read. Every process of several calls this, with the same versions.

    Args:
      opened: the store.
      anchors: the model, from `store.open_anchors`; used up.
      former: the version it holds, by number or name.
      latter: the version it shall hold; by default the newest.

    Returns:
      The model, and the number of its version.

    Raises:
      ValueError: too small a capacity; the model can still be used.
      StoreError: no such version, or the store was compacted: open it and the model anew.
    """
    found = store.snapshot(opened, latter)
    if len(found.live) > anchors.capacity:
        raise ValueError(f"{len(found.live)} rows do not fit into {anchors.capacity} slots")
    changed = store.diff(opened, former, found.version)
    for rows in _runs(changed.added):
        units = store.read_rows(found, rows)
        anchors = in_place.overwrite(anchors, rows.start, units, np.ones(len(rows), bool))
    return in_place.clear(anchors, changed.removed), found.version


def _runs(rows: np.ndarray) -> Iterator[range]:
    """Ascending numbers as ranges, none very long."""
    for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
        for start in range(0, len(run), _ROWS):
            part = run[start : start + _ROWS].tolist()
            yield range(part[0], part[-1] + 1)


def _from_the_first_process(value: int) -> int:
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))
