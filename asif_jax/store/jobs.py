"""Long jobs that fill a store part by part, on one host or several, and go on where they stopped.

A job owns a range of rows from the start: the pair of number i in its set goes to row first + i. A
part that is done has a key that says what came of it, written in the commit of its rows.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorstore as ts

from asif_jax.store.commits import allot_rows, commit, write_rows
from asif_jax.store.database import Store
from asif_jax.store.failures import CHANGED, StoreError, told
from asif_jax.store.records import StoredPair, pack, unpack
from asif_jax.store.snapshots import Snapshot, read_block

_TRIES = 20


class Job(NamedTuple):
    """A job.

    Attributes:
      key: is what it is kept under.
      source: says where its pairs come from.
      first: is its first row.
      size: counts its rows.
      part: counts the rows of one part, a multiple of the store's chunk.
    """

    key: str
    source: str
    first: int
    size: int
    part: int

    def span(self, number: int) -> range:
        """The numbers, in the set, of the pairs of a part."""
        return range(number * self.part, min((number + 1) * self.part, self.size))

    @property
    def parts(self) -> int:
        """How many parts it has."""
        return -(-self.size // self.part)


class Outcome(NamedTuple):
    """What came of a part.

    Attributes:
      added: counts the pairs written.
      present: counts the pairs that the store held before.
      skipped: holds place and reason of each that was left out.
    """

    added: int
    present: int
    skipped: tuple[tuple[str, str], ...]


def start_job(store: Store, *, identity: str, source: str, size: int, part: int) -> Job:
    """Finds the job of a set, or allots its rows, in one commit.

    Args:
      store: an open store.
      identity: a hash of what is embedded.
      source: where it comes from, in words.
      size: how many pairs there are.
      part: rows to a part at least; a job that was begun keeps its own.

    Returns:
      The job.

    Raises:
      StoreError: another writer was first, or the store cannot be written.
    """
    found = find_job(store, identity)
    if found is not None:
        return found
    chunk = store.header.chunk
    with commit(store, f"begin {source}: room for {size} pairs") as change:
        first = change.rows + -change.rows % chunk
        job = Job(f"jobs/{identity}", source, first, size, part + -part % chunk)
        if change.kv.read(job.key).result().state == "value":
            raise StoreError(f"another process embeds {source} into it at the same time")
        allot_rows(change, first, size)
        change.kv.write(job.key, pack(job)).result()
    return job


def find_job(store: Store, identity: str) -> Job | None:
    """The job of a set, if it was begun.

    Args:
      store: an open store.
      identity: as given to `start_job`.
    """
    with told(store.url):
        found = store.kv.read(f"jobs/{identity}").result()
        return Job(*unpack(found.value)) if found.state == "value" else None


def outcomes(store: Store, job: Job) -> dict[int, Outcome]:
    """The parts of a job that are done.

    Args:
      store: an open store.
      job: a job.

    Returns:
      The number of the part -> what came of it.
    """
    with told(store.url):
        prefix = f"{job.key}/"
        keys = store.kv.list(ts.KvStore.KeyRange(prefix, f"{job.key}0"), len(prefix)).result()
        found = {int(key, 16): store.kv.read(prefix + key.decode()) for key in keys}
        contents = {number: unpack(read.result().value) for number, read in found.items()}
    return {
        number: Outcome(added, present, tuple(map(tuple, skipped)))
        for number, (added, present, skipped) in sorted(contents.items())
    }


def write_part(
    store: Store,
    job: Job,
    number: int,
    units: Mapping[str, np.ndarray],
    pairs: Sequence[StoredPair | None],
    outcome: Outcome,
) -> None:
    """Writes a part of a job, in one commit.

    Args:
      store: an open store.
      job: the job.
      number: of the part.
      units: modality -> [b, d], from `unit_rows`; rows without a pair may hold anything.
      pairs: b of them, None where there is none.
      outcome: what came of the part.

    Raises:
      StoreError: another process wrote the part, or the store cannot be written.
    """
    key = f"{job.key}/{number:08x}"
    message = f"{job.source}, part {number + 1} of {job.parts}"
    taken = f"another process embeds {job.source} into it at the same time"
    for left in reversed(range(_TRIES)):
        try:
            with commit(store, message, added=outcome.added) as change:
                if change.kv.read(key).result().state == "value":
                    raise StoreError(taken)
                write_rows(change, job.first + job.span(number).start, units, pairs)
                change.kv.write(key, pack(outcome)).result()
            return
        except StoreError as error:
            # Edits beside the job get in its way by chance; the part is there once all the same.
            if not left or CHANGED not in str(error):
                raise


def other_references(snapshot: Snapshot, job: Job) -> frozenset[int]:
    """What the live pairs of a store are made of, beside those of a job.

    Args:
      snapshot: the newest version.
      job: the job.

    Returns:
      The hashes of the images' references, by `hash`, which serve this process alone.
    """
    live = snapshot.live.copy()
    live[job.first : job.first + job.size] = False
    chunk = snapshot.header.chunk
    found = set()
    for block in np.unique(np.flatnonzero(live) // chunk).tolist():
        for row, pair in enumerate(read_block(snapshot, block), start=block * chunk):
            if live[row] and pair is not None:
                found.add(hash(pair.image))
    return frozenset(found)
