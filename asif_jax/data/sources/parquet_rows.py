"""Reads rows of Parquet files by number, a few at a time, however large the row groups are."""

import collections
import importlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from asif_jax.data.sources.shards import trouble_with

# How many rows are decoded at once, and how many stay in memory: threads ask for rows that are
# close to each other.
_BATCH = 32
_KEPT = 128

# Without a buffer, a whole column of a row group is read in one piece.
_BUFFER = 2**20


def arrow() -> Any:
    """Imports the library that reads Parquet.

    Returns:
      The module pyarrow, with its module parquet loaded.

    Raises:
      ValueError: the library is missing; the message says how to install it.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise ValueError(
            f"reading Parquet requires pyarrow: pip install 'asif-jax[data]' ({error})"
        ) from error


class RowReader:
    """Reads rows in any order, and cheaply where they are asked for in nearly ascending order.

    A row group can only be decoded from its beginning. The reader therefore keeps its place in one,
    and reads on from there: in ascending order each row group is decoded once, and it is never in
    memory as a whole. Several threads may use a reader.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._kept: collections.deque[tuple[tuple, int, Any]] = collections.deque()
        self._damaged: dict[tuple, tuple[int, str]] = {}
        self._open: tuple | None = None
        self._batches: Iterator[Any] = iter(())
        self._next = 0

    def read(
        self, path: Path, state: str, columns: Sequence[str], group: int, row: int
    ) -> tuple[Any, ...]:
        """Reads one row.

        Args:
          path: a Parquet file.
          state: what `file_state` returned when the rows of the file were counted.
          columns: the names of the columns to read; no others are read.
          group: the number of the row group.
          row: the number of the row in it.

        Returns:
          The Arrow scalars of the columns.

        Raises:
          ValueError: the row group is damaged at this row or before it, or the file is gone or was
            written anew.
        """
        with self._lock:
            start, batch = self._batch((path, state, tuple(columns), group), row)
        return tuple(batch.column(column)[row - start] for column in columns)

    def _batch(self, place: tuple, row: int) -> tuple[int, Any]:
        for kept, start, batch in self._kept:
            if kept == place and start <= row < start + batch.num_rows:
                return start, batch
        first_bad, reason = self._damaged.get(place, (row + 1, ""))
        if first_bad <= row:
            raise ValueError(reason)
        if self._open != place or row < self._next:
            self._restart(place)
        try:
            return self._read_on(place, row)
        except (OSError, ValueError, arrow().ArrowException) as error:
            # The damage is remembered: else each later row would read all those before it again.
            reason = f"row group cut short or damaged ({' '.join(str(error).split())})"
            self._damaged[place] = self._next, reason
            self._open = None
            raise ValueError(reason) from error

    def _restart(self, place: tuple) -> None:
        path, state, columns, group = place
        self._open = None
        if trouble := trouble_with(path, state):
            raise ValueError(trouble)
        self._open, self._batches, self._next = place, _stream(path, columns, group), 0

    def _read_on(self, place: tuple, row: int) -> tuple[int, Any]:
        for batch in self._batches:
            start, self._next = self._next, self._next + batch.num_rows
            self._kept.append((place, start, batch))
            while sum(kept.num_rows for _, _, kept in self._kept) > _KEPT:
                self._kept.popleft()
            if row < self._next:
                return start, batch
        raise OSError("fewer rows than the file says")


def _stream(path: Path, columns: Sequence[str], group: int) -> Iterator[Any]:
    with arrow().parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
        yield from file.iter_batches(_BATCH, row_groups=[group], columns=list(columns))
