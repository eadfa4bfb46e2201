"""A model that serves, and the store it came from: edited in one call, for the next query to see.

The model comes from `store.open_model`, or its pairs alone from `store.open_anchors`, with a
capacity that leaves room: slot i is row i of the store. An edit is committed first and then written
into the model's own memory, so that nothing is copied or embedded again. The method of a model is
fitted anew to sums that follow the edit. The model given is donated.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import ArrayLike

from asif_jax import store
from asif_jax.core import in_place
from asif_jax.core.anchors import Anchors
from asif_jax.model import Model, edited, rows_of
from asif_jax.store import Store, StoredPair
from asif_jax.store.commits import exchange, unit_rows

_ROWS = 1 << 14

Serving = TypeVar("Serving", Model, Anchors)


def insert(
    opened: Store,
    serving: Serving,
    embeddings: Mapping[str, ArrayLike],
    pairs: Sequence[StoredPair],
    *,
    message: str = "add",
) -> tuple[Serving, range]:
    """Adds pairs to a store and to the model that serves from it.

    With several processes, all call this with the same arguments, and the first one commits.

    Args:
      opened: the store.
      serving: the model, from `store.open_model` or `store.open_anchors`; donated.
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
    return replace(opened, serving, (), embeddings, pairs, message=message)


def remove(
    opened: Store, serving: Serving, rows: Sequence[int] | np.ndarray, *, message: str = "remove"
) -> Serving:
    """Removes pairs from a store and from the model that serves from it.

    Args:
      opened: the store.
      serving: the model, from `store.open_model` or `store.open_anchors`; donated.
      rows: [b] int, of live pairs.
      message: for the log.

    Returns:
      The model without the pairs.

    Raises:
      StoreError: as for `insert`, or a row that is not live.
    """
    if jax.process_index() == 0:
        store.remove(opened, rows, message=message)
    gone = _rows_of(serving, rows)
    return _with(opened, serving, in_place.clear(_pairs_of(serving), rows), removed=gone)


def replace(
    opened: Store,
    serving: Serving,
    rows: Sequence[int] | np.ndarray,
    embeddings: Mapping[str, ArrayLike],
    pairs: Sequence[StoredPair],
    *,
    message: str = "replace",
) -> tuple[Serving, range]:
    """Removes pairs and adds others, in one commit, from and to a store and a model.

    Args:
      opened: the store.
      serving: the model, from `store.open_model` or `store.open_anchors`; donated.
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
    anchors = _pairs_of(serving)
    room = anchors.capacity - store.row_count(opened)
    if len(pairs) > room:
        raise ValueError(f"{len(pairs)} pairs do not fit into the {room} slots that are left")
    widened = {m: _widened(array, anchors.embeddings[m].shape) for m, array in units.items()}
    added = None
    if jax.process_index() == 0:
        added = exchange(opened, rows, units, pairs, message=message)
    first = _from_the_first_process(-1 if added is None else added.start)
    gone = _rows_of(serving, rows)
    anchors = in_place.clear(anchors, rows)
    anchors = in_place.overwrite(anchors, first, widened, np.ones(len(pairs), bool))
    slots = range(first, first + len(pairs))
    return _with(opened, serving, anchors, added=slots, removed=gone), slots


def update(
    opened: Store, serving: Serving, former: int | str, latter: int | str | None = None
) -> tuple[Serving, int]:
    """Brings a model to another version of its store: what others have added and removed since.

    Only what differs is read. Every process of several calls this, with the same versions.

    Args:
      opened: the store.
      serving: the model, from `store.open_model` or `store.open_anchors`; donated.
      former: the version it holds, by number or name.
      latter: the version it shall hold; by default the newest.

    Returns:
      The model, and the number of its version.

    Raises:
      ValueError: too small a capacity; the model can still be used.
      StoreError: no such version, or the store was compacted: open it and the model anew.
    """
    found = store.snapshot(opened, latter)
    anchors = _pairs_of(serving)
    if len(found.live) > anchors.capacity:
        raise ValueError(f"{len(found.live)} rows do not fit into {anchors.capacity} slots")
    changed = store.diff(opened, former, found.version)
    gone = _rows_of(serving, changed.removed)
    for rows in _runs(changed.added):
        units = {
            m: _widened(array, anchors.embeddings[m].shape)
            for m, array in store.read_rows(found, rows).items()
        }
        anchors = in_place.overwrite(anchors, rows.start, units, np.ones(len(rows), bool))
    anchors = in_place.clear(anchors, changed.removed)
    return _with(opened, serving, anchors, added=changed.added, removed=gone), found.version


def _pairs_of(serving: Model | Anchors) -> Anchors:
    return serving.anchors if isinstance(serving, Model) else serving


def _rows_of(serving: Model | Anchors, rows: Sequence[int] | np.ndarray) -> Anchors | None:
    """The rows of pairs that are about to go, if the model's method will have to know them."""
    return rows_of(serving.anchors, rows) if isinstance(serving, Model) else None


def _with(
    opened: Store,
    serving: Serving,
    anchors: Anchors,
    *,
    added: Sequence[int] | np.ndarray = (),
    removed: Anchors | None = None,
) -> Serving:
    """The model of these pairs, its method fitted to what changed."""
    if not isinstance(serving, Model):
        return anchors
    now = edited(serving, anchors, added=rows_of(anchors, added), removed=removed)
    return now._replace(pairs=store.SlotPairs(store.snapshot(opened)))


def _widened(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Rows with as many captions as the slots of a model have room for.

    Raises:
      ValueError: they have more.
    """
    if rows.ndim < 3 or rows.shape[1] == shape[1]:
        return rows
    if rows.shape[1] > shape[1]:
        raise ValueError(
            f"pairs of {rows.shape[1]} captions do not fit into slots of {shape[1]}: "
            "open the model anew"
        )
    return np.pad(rows, ((0, 0), (0, shape[1] - rows.shape[1]), (0, 0)))


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
