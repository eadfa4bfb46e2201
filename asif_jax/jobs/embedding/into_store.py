"""The batch job: a set of captioned images, and what goes with them, through encoders into a store.

The set is cut into parts, and every part lands in one commit: killed anywhere, the job goes on
with the parts that are missing, and ends with the same bits. Several hosts share the parts.
"""

import concurrent.futures
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from asif_jax.core.cosine import normalize
from asif_jax.data import Example, ImageSet, Skipped
from asif_jax.data.image_set import fingerprint
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.encoding import for_all_devices, on_all_devices
from asif_jax.jobs.embedding.pipeline import Clock, EmbeddedPart, Inputs, embed_parts, inputs_of
from asif_jax.methods.statistics import pair_means
from asif_jax.store import Store, StoredPair, snapshot
from asif_jax.store.commits import unit_rows
from asif_jax.store.jobs import (
    Job,
    Outcome,
    find_job,
    other_references,
    outcomes,
    start_job,
    write_part,
)
from asif_jax.store.sums import FEWEST, write_sums

_PART = 1024

# Fewer than these say little about a set.
_FEW = 100

_PRESENT = "in the store already"


class Embedded(NamedTuple):
    """What a run of a job did, all its hosts together.

    Attributes:
      added: counts the pairs that this run put into the store.
      present: counts the images that the store held before.
      skipped: lists what this run and former ones left out, and why.
      images: counts the images that this process went through.
      seconds: says how long it took.
      waited: says how many of those seconds it waited for images to be read and prepared.
    """

    added: int
    present: int
    skipped: tuple[Skipped, ...]
    images: int
    seconds: float
    waited: float


def embed_into(
    store: Store,
    images: ImageSet,
    encoders: Mapping[str, Encoder],
    *,
    batch: int = 32,
    part: int = _PART,
    most_skipped: float = 0.5,
    sums_from: int = FEWEST,
    progress: bool = True,
) -> Embedded:
    """Embeds a set into a store; a rerun goes on where the former run stopped.

    Every process of `jax.distributed` takes every so many parts, and all must call this. Images
    that the store holds already, by their reference, are left out.

    Args:
      store: an open store.
      images: a set of captions, with items of every further modality of the store.
      encoders: modality -> the store's encoder of it; run on all devices of this process.
      batch: images, or captions, to a batch; rounded up to a multiple of the devices.
      part: pairs to a commit, which is what a kill can cost.
      most_skipped: the job stops when a larger share of the images cannot be read.
      sums_from: the number of live pairs from which a store keeps their sums.
      progress: show a progress bar on stderr.

    Returns:
      What was done.

    Raises:
      ValueError: a set that lacks a modality of the store, encoders of other modalities than the
        store's, or too much that cannot be read.
      StoreError: another process embeds the same set, or the store cannot be written.
    """
    _check_modalities(store, images, encoders)
    start = time.perf_counter()
    job = _shared_job(store, images, part)
    done = outcomes(store, job)
    # Only the parts that are done have live rows.
    held = int(snapshot(store).live[job.first : job.first + job.size].sum())
    # What no process has written yet, none takes for done.
    wait_for_all()
    mine = range(jax.process_index(), job.parts, jax.process_count())
    todo = [number for number in mine if number not in done]
    tally = _Tally(most_skipped, [done[number] for number in mine if number in done])
    total = sum(len(job.span(number)) for number in todo)
    clock = Clock()
    bar = tqdm.tqdm(total=total, disable=not progress, unit="pair", desc="embedding", leave=False)
    with bar:
        options = {"batch": for_all_devices(batch), "clock": clock, "bar": bar}
        parts = embed_parts(
            [job.span(number) for number in todo],
            _reader(store, images, job, encoders, needed=bool(todo)),
            {modality: on_all_devices(encoder) for modality, encoder in encoders.items()},
            **options,
        )
        _write_all(store, images, job, parts, tally)
    wait_for_all()
    found = outcomes(store, job)
    new = [outcome for number, outcome in found.items() if number not in done]
    if new and jax.process_index() == 0:
        write_sums(store, fewest=sums_from)
    wait_for_all()
    return Embedded(
        added=sum(outcome.added for outcome in new),
        present=held + sum(outcome.present for outcome in found.values()),
        skipped=(*images.skipped, *_all_skipped(found.values())),
        images=total,
        seconds=time.perf_counter() - start,
        waited=clock.waited,
    )


def job_identity(images: ImageSet) -> str:
    """What tells the job of one set from another's, and of a set that changed from itself before.

    Args:
      images: the set.

    Returns:
      A hash.
    """
    return fingerprint([[images.source, images.identity]])


def wait_for_all() -> None:
    """Waits until every process of `jax.distributed` is here; at once if there is one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("asif_jax into_store")


def check_k(k: int | None, pairs: int) -> None:
    """Refuses a k that a number of pairs cannot serve, before any work is done.

    Args:
      k: how many similarities to keep, or None for a rule.
      pairs: the number of pairs.

    Raises:
      ValueError: k outside 1..pairs.
    """
    if k is not None and not 1 <= k <= pairs:
        raise ValueError(f"k must lie between 1 and the number of pairs: got k={k}, {pairs} pairs")


def _check_modalities(store: Store, images: ImageSet, encoders: Mapping[str, Encoder]) -> None:
    """Refuses a set or encoders that cannot fill every modality of a store."""
    held = store.header.dimensions
    if set(encoders) != set(held):
        raise ValueError(
            f"{store.url} holds the modalities {sorted(held)}, but the encoders are of "
            f"{sorted(encoders)}"
        )
    if images.classes and "text" in held:
        raise ValueError(f"{images.source} has no captions")
    for modality in held:
        if modality not in ("image", "text", *images.modalities):
            raise ValueError(f"{images.source} has nothing of the modality {modality!r}")


def _shared_job(store: Store, images: ImageSet, part: int) -> Job:
    """The job, begun by the first process if need be."""
    identity = job_identity(images)
    if jax.process_index() == 0:
        start_job(store, identity=identity, source=images.source, size=images.size, part=part)
    wait_for_all()
    job = find_job(store, identity)
    if job is None:
        raise ValueError(f"{images.source} is not the same on all hosts")
    return job


def _reader(
    store: Store, images: ImageSet, job: Job, encoders: Mapping[str, Encoder], *, needed: bool
):
    """What reads one example of a set, unless the store holds it already."""
    present = other_references(snapshot(store), job) if needed else frozenset()

    def read(index: int) -> Inputs:
        reference, place = images.reference(index), str(images.place(index))
        if hash(reference) in present:
            raise ValueError(_PRESENT)
        try:
            example = images.read(index)
        except ValueError as error:
            raise ValueError(str(error).removeprefix(f"{place}: ")) from error
        return Inputs(inputs_of(example, encoders), _stored_pair(reference, example))

    return read


def _stored_pair(reference: str, example: Example) -> StoredPair:
    """What a store says that a pair was made of; of further items, the files and words."""
    items = []
    for modality, item in example.items.items():
        several = item if isinstance(item, tuple | list) else (item,)
        named = tuple(fspath(one) for one in several if isinstance(one, str | PathLike))
        items += [(modality, named)] if named else []
    return StoredPair(reference, example.captions, tuple(items))


def _write_all(
    store: Store, images: ImageSet, job: Job, parts: Iterable[EmbeddedPart], tally: "_Tally"
) -> None:
    """Writes parts; while one is written, the next is embedded."""
    with concurrent.futures.ThreadPoolExecutor(1) as writer:
        written = None
        for part in parts:
            number = part.span.start // job.part
            units, pairs, outcome = _as_kept(store, images, part)
            tally.add(outcome, len(pairs), last=number == job.parts - 1)
            if written is not None:
                written.result()
            written = writer.submit(write_part, store, job, number, units, pairs, outcome)
        if written is not None:
            written.result()


def _as_kept(
    store: Store, images: ImageSet, part: EmbeddedPart
) -> tuple[dict[str, np.ndarray], list[StoredPair | None], Outcome]:
    """The rows of a part, what they were made of, and what came of it."""
    count = len(part.kept)
    given = {m: _each(found.by_example(count), m, store) for m, found in part.rows.items()}
    finite = np.ones(count, bool)
    for array in given.values():
        finite &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    places = np.asarray(part.kept, np.int64) - part.span.start
    rows = {m: np.zeros([len(part.span), *a.shape[1:]], a.dtype) for m, a in given.items()}
    for modality, array in given.items():
        rows[modality][places[finite]] = array[finite]
    pairs: list[StoredPair | None] = [None] * len(part.span)
    reasons = dict(part.left_out)
    for index, place, pair, usable in zip(part.kept, places, part.known, finite, strict=True):
        if usable:
            pairs[place] = pair
        else:
            reasons[index] = "its embedding is not finite"
    present = sum(reason == _PRESENT for reason in reasons.values())
    skipped = tuple(
        (str(images.place(index)), reason)
        for index, reason in sorted(reasons.items())
        if reason != _PRESENT
    )
    units = unit_rows(store, rows, count=len(pairs))
    return units, pairs, Outcome(int(finite.sum()), present, skipped)


def _each(embeddings: np.ndarray, modality: str, store: Store) -> np.ndarray:
    """[n, several, d] embeddings, or [n, d] in a modality of which a store keeps one for a pair."""
    if modality in store.header.several:
        return embeddings
    if embeddings.shape[1] == 1:
        return embeddings[:, 0]
    return np.asarray(pair_means(normalize(embeddings)))


class _Tally:
    """How much was left out of this process's parts, which must not be too much."""

    def __init__(self, most_skipped: float, done: Sequence[Outcome]):
        self.most_skipped = most_skipped
        self.skipped = [item for outcome in done for item in outcome.skipped]
        self.seen = sum(o.added + o.present + len(o.skipped) for o in done)

    def add(self, outcome: Outcome, seen: int, *, last: bool) -> None:
        """Counts a part, or stops the job before it is written."""
        self.skipped += outcome.skipped
        self.seen += seen
        enough = last or self.seen >= _FEW
        if enough and len(self.skipped) > self.most_skipped * self.seen:
            place, reason = self.skipped[0]
            raise ValueError(
                f"{len(self.skipped)} of {self.seen} images could not be used, more than a share "
                f"of {self.most_skipped:g}; the first: {place}: {reason}"
            )


def _all_skipped(done: Iterable[Outcome]) -> Iterator[Skipped]:
    for outcome in done:
        for place, reason in outcome.skipped:
            yield Skipped(Path(place), reason)
