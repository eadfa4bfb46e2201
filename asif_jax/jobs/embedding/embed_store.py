"""The batch job: a set of captioned images through the encoders into a store.

The set is cut into parts, and every part lands in one commit: killed anywhere, the job goes on
with the parts that are missing, and ends with the same bits. Several hosts share the parts.
"""

import concurrent.futures
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from asif_jax.core.cosine import normalize
from asif_jax.data import ImageSet, Skipped
from asif_jax.data.image_set import fingerprint
from asif_jax.encoders import Encoder, sharded
from asif_jax.jobs.embedding.embed import batched, by_pair, embed_texts, encode, in_threads
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

_PART = 1024

# Fewer than these say little about a set.
_FEW = 100


class Embedded(NamedTuple):
    """What a run of a job did, all its hosts together.

    Attributes:
      added: pairs that this run put into the store.
      present: images that the store held before.
      skipped: what this run and former ones left out, and why.
      images: that this process went through.
      seconds: it took.
      waited: of those, for images to be read and prepared.
    """

    added: int
    present: int
    skipped: tuple[Skipped, ...]
    images: int
    seconds: float
    waited: float


class _Item(NamedTuple):
    """An image of the set, prepared for the encoder; or `reason` says why it is left out."""

    part: int
    place: str
    reference: str
    pixels: np.ndarray | None = None
    captions: tuple[str, ...] = ()
    reason: str = ""


_PRESENT = "in the store already"


def embed_into(
    store: Store,
    images: ImageSet,
    image_encoder: Encoder,
    text_encoder: Encoder,
    *,
    batch: int = 32,
    part: int = _PART,
    most_skipped: float = 0.5,
    progress: bool = True,
) -> Embedded:
    """Embeds captioned images into a store; a rerun goes on where the former run stopped.

    Every process of `jax.distributed` takes every so many parts, and all must call this. Images
    that the store holds already, by their reference, are left out.

    Args:
      store: an open store, of the same encoders.
      images: a set of captions.
      image_encoder: the store's encoder of images; run on all devices of this process.
      text_encoder: the store's encoder of texts.
      batch: images, and captions, to a batch; rounded up to a multiple of the devices.
      part: pairs to a commit, which is what a kill can cost.
      most_skipped: the job stops when a larger share of the images cannot be read.
      progress: show a progress bar on stderr.

    Returns:
      What was done.

    Raises:
      ValueError: a set without captions, or too much that cannot be read.
      StoreError: another process embeds the same set, or the store cannot be written.
    """
    if images.classes:
        raise ValueError(f"{images.source} has no captions")
    start = time.perf_counter()
    job = _shared_job(store, images, part)
    encoders = _on_all_devices(image_encoder), _on_all_devices(text_encoder)
    batch += -batch % jax.local_device_count()
    done = outcomes(store, job)
    # Only the parts that are done have live rows.
    held = int(snapshot(store).live[job.first : job.first + job.size].sum())
    # What no process has written yet, none takes for done.
    wait_for_all()
    mine = range(jax.process_index(), job.parts, jax.process_count())
    todo = [number for number in mine if number not in done]
    items = _Timed(_prepared(store, images, job, todo, image_encoder, ahead=4 * batch))
    tally = _Tally(most_skipped, [done[number] for number in mine if number in done])
    total = sum(len(job.span(number)) for number in todo)
    bar = tqdm.tqdm(total=total, disable=not progress, unit="pair", desc="embedding", leave=False)
    # While a part is written, the next is embedded.
    with bar, concurrent.futures.ThreadPoolExecutor(1) as writer:
        written = None
        for number, group in itertools.groupby(items, key=lambda item: item.part):
            units, pairs, outcome = _embed_part(store, group, encoders, batch, bar)
            tally.add(outcome, len(pairs), last=number == job.parts - 1)
            if written is not None:
                written.result()
            written = writer.submit(write_part, store, job, number, units, pairs, outcome)
        if written is not None:
            written.result()
    wait_for_all()
    found = outcomes(store, job)
    new = [outcome for number, outcome in found.items() if number not in done]
    return Embedded(
        added=sum(outcome.added for outcome in new),
        present=held + sum(outcome.present for outcome in found.values()),
        skipped=(*images.skipped, *_all_skipped(found.values())),
        images=total,
        seconds=time.perf_counter() - start,
        waited=items.waited,
    )


def job_identity(images: ImageSet) -> str:
    """What tells the job of one set from another's, and of a set that changed from itself before.

    Args:
      images: the set.

    Returns:
      A hash.
    """
    return fingerprint([[images.source, images.identity]])


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


def wait_for_all() -> None:
    """Waits until every process of `jax.distributed` is here; at once if there is one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("asif_jax embed_store")


def _on_all_devices(encoder: Encoder) -> Encoder:
    devices = jax.local_devices()
    if len(devices) == 1:
        return encoder
    return sharded(encoder, mesh=Mesh(np.array(devices), ("data",)), axis="data")


def _prepared(
    store: Store,
    images: ImageSet,
    job: Job,
    parts: Sequence[int],
    encoder: Encoder,
    *,
    ahead: int,
) -> Iterator[_Item]:
    """All images of some parts, in order, read and prepared in threads."""
    known = other_references(snapshot(store), job) if parts else frozenset()

    def prepare(numbers: tuple[int, int]) -> _Item:
        part, index = numbers
        place = str(images.place(index))
        item = _Item(part, place, images.reference(index))
        if hash(item.reference) in known:
            return item._replace(reason=_PRESENT)
        try:
            example = images.read(index)
            pixels = encoder.preprocess([example.image])
        except ValueError as error:
            return item._replace(reason=str(error).removeprefix(f"{place}: "))
        return item._replace(pixels=pixels, captions=example.captions)

    numbers = ((part, index) for part in parts for index in job.span(part))
    return in_threads(numbers, prepare, ahead=ahead)


def _embed_part(
    store: Store,
    items: Iterable[_Item],
    encoders: tuple[Encoder, Encoder],
    batch: int,
    bar: tqdm.tqdm,
) -> tuple[dict[str, np.ndarray], list[StoredPair | None], Outcome]:
    """The rows of a part, what they were made of, and what came of it."""
    seen: list[_Item] = []

    def readable() -> Iterator[np.ndarray]:
        for item in items:
            # Pixels are let go of as soon as they are embedded.
            seen.append(item._replace(pixels=None))
            bar.update()
            if item.pixels is not None:
                yield item.pixels

    def batches() -> Iterator[tuple[np.ndarray, int]]:
        for rows in batched(readable(), batch):
            yield np.concatenate(rows + rows[-1:] * (batch - len(rows))), len(rows)

    embeddings = encode(encoders[0], batches())
    texts = _embed_captions([item.captions for item in seen if not item.reason], encoders[1], batch)
    finite = np.isfinite(embeddings).all(axis=1) & np.isfinite(texts).all(axis=(1, 2))
    kept = np.flatnonzero([not item.reason for item in seen])
    for index in kept[~finite].tolist():
        seen[index] = seen[index]._replace(reason="its embedding is not finite")
    sources = {"image": embeddings, "text": texts}
    rows = {m: np.zeros([len(seen), *a.shape[1:]], a.dtype) for m, a in sources.items()}
    for modality, array in sources.items():
        rows[modality][kept[finite]] = array[finite]
    pairs = [None if item.reason else StoredPair(item.reference, item.captions) for item in seen]
    present = sum(item.reason == _PRESENT for item in seen)
    skipped = tuple((i.place, i.reason) for i in seen if i.reason and i.reason != _PRESENT)
    outcome = Outcome(int(finite.sum()), present, skipped)
    for modality in sources.keys() - set(store.header.several):
        # A store of one embedding for each pair holds the mean of the captions.
        if rows[modality].ndim == 3:
            rows[modality] = np.asarray(pair_means(normalize(rows[modality])))
    return unit_rows(store, rows, count=len(seen)), pairs, outcome


def _embed_captions(
    captions: Sequence[tuple[str, ...]], encoder: Encoder, batch: int
) -> np.ndarray:
    """[n, captions, e]: the captions of each image."""
    texts = [text for several in captions for text in several]
    if not texts:
        return np.zeros([0, 1, encoder.dimension], np.float32)
    owners = np.repeat(np.arange(len(captions)), [len(several) for several in captions])
    embeddings = embed_texts(texts, encoder, batch=batch, progress=False, finite=False)
    return by_pair(embeddings, owners, len(captions))


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


class _Timed:
    """Items, and the seconds that were spent waiting for them."""

    def __init__(self, items: Iterable[_Item]):
        self.items = iter(items)
        self.waited = 0.0

    def __iter__(self) -> Iterator[_Item]:
        while True:
            start = time.perf_counter()
            item = next(self.items, None)
            self.waited += time.perf_counter() - start
            if item is None:
                return
            yield item


def _all_skipped(done: Iterable[Outcome]) -> Iterator[Skipped]:
    for outcome in done:
        for place, reason in outcome.skipped:
            yield Skipped(Path(place), reason)
