"""A store of many pairs: writing, reading, opening, and updating while it serves.

    pip install faiss-cpu
    python benchmarks/store.py /a/directory/with/25/GB

A file system's own speed is measured in the same run, with the same bytes. "Next query" is one
image and one text, projected and compared, after the update.
"""

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from measure import host_peak_bytes, machine, print_table
from tyro.conf import Positional

import asif_jax as asif
from asif_jax import store
from asif_jax.jobs import serving as live

_BATCH = 1 << 14


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the problem."""

    directory: Positional[Path]
    """Where to write: on the disk that is to be measured. What is written is deleted again."""
    pairs: int = 1_600_000
    """Pairs in the store."""
    update: int = 10_000
    """Pairs to add and to remove."""
    dimensions: tuple[int, int] = (1280, 384)
    """Of images and texts."""
    k: int = 800
    """Similarities kept."""
    repeats: int = 3
    """Updates, of which the median is printed."""
    peers: bool = True
    """Compare with FAISS's flat index."""


def batch(settings: Settings, seed: int, count: int) -> dict[str, np.ndarray]:
    """Random embeddings of pairs."""
    generator = np.random.default_rng(seed)
    names = zip(("image", "text"), settings.dimensions, strict=True)
    return {m: generator.standard_normal([count, d], np.float32) for m, d in names}


def pairs_of(first: int, count: int) -> list[store.StoredPair]:
    rows = range(first, first + count)
    return [
        store.StoredPair(f"/images/{row:09}.jpg", (f"Caption of image {row}.",)) for row in rows
    ]


@contextmanager
def timed(seconds: dict[str, list[float]], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds.setdefault(name, []).append(time.perf_counter() - start)
    print(f"{name}: {seconds[name][-1]:.3g} s", file=sys.stderr, flush=True)


def write_store(settings: Settings, path: Path) -> float:
    """Writes the store, the same embeddings again and again; seconds without making them."""
    records = {m: store.EncoderRecord(m, m) for m in ("image", "text")}
    dimensions = dict(zip(("image", "text"), settings.dimensions, strict=True))
    opened = store.create(path, store.Header(records, dimensions, "bfloat16"))
    embeddings, spent = batch(settings, 0, _BATCH), 0.0
    for first in range(0, settings.pairs, _BATCH):
        count = min(_BATCH, settings.pairs - first)
        pairs = pairs_of(first, count)
        part = {m: np.roll(rows, first, axis=1)[:count] for m, rows in embeddings.items()}
        start = time.perf_counter()
        store.append(opened, part, pairs)
        spent += time.perf_counter() - start
    return spent


def write_raw(settings: Settings, path: Path) -> float:
    """Writes as many bytes to one file as the embeddings have, and syncs it."""
    block = np.zeros([_BATCH, sum(settings.dimensions)], np.uint16)
    start = time.perf_counter()
    with path.open("wb") as file:
        for first in range(0, settings.pairs, _BATCH):
            file.write(block[: settings.pairs - first].data)
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start


def read_raw(settings: Settings, path: Path) -> float:
    """Reads that file into memory, as one array."""
    start = time.perf_counter()
    array = np.fromfile(path, np.uint16)
    taken = time.perf_counter() - start
    assert array.size == settings.pairs * sum(settings.dimensions)
    return taken


def forget(path: Path) -> None:
    """Drops what the system holds of the files below a path, so that the disk is read."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def query(settings: Settings, anchors: asif.Anchors, one: dict[str, Any]) -> jax.Array:
    image, text = (
        asif.represent(one[m], anchors, modality=m, k=settings.k, p=8.0) for m in ("image", "text")
    )
    return jax.block_until_ready(asif.similarity(image, text))


def open_model(settings: Settings, opened: store.Store) -> asif.Anchors:
    """The model, with room for the updates."""
    found = store.snapshot(opened)
    room = (settings.repeats + 1) * settings.update
    anchors = store.open_anchors(found, capacity=len(found.live) + room)
    return jax.block_until_ready(anchors)


def serve(settings: Settings, opened: store.Store, seconds: dict[str, list[float]]) -> int:
    """Updates a model that serves; how many programs that compiled."""
    anchors = open_model(settings, opened)
    one = {m: jnp.asarray(rows) for m, rows in batch(settings, 1, 1).items()}
    query(settings, anchors, one)
    compiled: list[str] = []
    for repeat in range(settings.repeats + 1):
        new = batch(settings, 2 + repeat, settings.update)
        pairs = pairs_of(settings.pairs + repeat * settings.update, settings.update)
        if repeat == 1:
            # The first update compiles.
            seconds.pop("add and next query"), seconds.pop("remove and next query")
            seconds.pop("query")
            count_compilations(compiled)
        with timed(seconds, "query"):
            query(settings, anchors, one)
        with timed(seconds, "add and next query"):
            anchors, rows = live.insert(opened, anchors, new, pairs)
            query(settings, anchors, one)
        with timed(seconds, "remove and next query"):
            anchors = live.remove(opened, anchors, np.asarray(rows)[::2])
            query(settings, anchors, one)
    return len(compiled)


def count_compilations(found: list[str]) -> None:
    def hear(event: str, duration: float, **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(hear)


def faiss_seconds(settings: Settings, seconds: dict[str, list[float]]) -> None:
    """The same updates of FAISS's flat index in half precision, without a store or texts."""
    import faiss

    d = settings.dimensions[0]
    index = faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.train(batch(settings, 0, 1000)["image"])
    block = batch(settings, 0, _BATCH)["image"]
    start = time.perf_counter()
    for first in range(0, settings.pairs, _BATCH):
        index.add(block[: settings.pairs - first])
    seconds["FAISS, build"] = [time.perf_counter() - start]
    one = batch(settings, 1, 1)["image"]
    for repeat in range(settings.repeats):
        new = batch(settings, 2 + repeat, settings.update)["image"]
        with timed(seconds, "FAISS, query of images"):
            index.search(one, settings.k)
        with timed(seconds, "FAISS, add and next query"):
            index.add(new)
            index.search(one, settings.k)
        rows = np.arange(index.ntotal - settings.update, index.ntotal, 2)
        with timed(seconds, "FAISS, remove_ids and next query"):
            index.remove_ids(rows)
            index.search(one, settings.k)


def main(settings: Settings) -> None:
    settings.directory.mkdir(parents=True, exist_ok=True)
    path, raw = settings.directory / "store", settings.directory / "raw"
    size = 2 * settings.pairs * sum(settings.dimensions)
    print(f"{machine()}; {settings}; {size / 1e9:.2f} GB of embeddings", flush=True)
    seconds: dict[str, list[float]] = {}
    try:
        for name, write, where in (
            ("one file, write and sync", write_raw, raw),
            ("store, write", write_store, path),
        ):
            seconds[name] = [write(settings, where)]
        opened = store.open_store(path)
        reads: dict[str, tuple[Path, Callable[[], object]]] = {
            "one file, read": (raw, lambda: read_raw(settings, raw)),
            "store, read": (path, lambda: read_all(opened)),
            "store, open a model": (path, lambda: open_model(settings, opened)),
        }
        for name, (where, read) in reads.items():
            for state in ("from disk", "again"):
                if state == "from disk":
                    forget(where)
                with timed(seconds, f"{name} {state}"):
                    read()
        raw.unlink()
        beside = host_peak_bytes(lambda: open_model(settings, opened)) - size
        compiled = serve(settings, opened, seconds)
        # Without updates in place: a store is written from embeddings, and a model read from it.
        whole = seconds["store, write"][0] + seconds["store, open a model again"][0]
        seconds["rebuild: write and open"] = [whole]
        with timed(seconds, "compact"):
            store.compact(opened, progress=False)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        raw.unlink(missing_ok=True)
    if settings.peers:
        faiss_seconds(settings, seconds)
    medians = {name: float(np.median(taken)) for name, taken in seconds.items()}
    whole = ("write", "read", "open", "rebuild", "compact")
    print_table(
        ["", "seconds", "GB/s"],
        [
            [name, s, f"{size / 1e9 / s:.2f}" if any(w in name for w in whole) else ""]
            for name, s in medians.items()
        ],
    )
    print(f"programs compiled by the updates: {compiled}")
    print(f"host memory while opening, beside the embeddings: {beside / 2**20:.0f} MiB")


def read_all(opened: store.Store) -> None:
    for array in store.snapshot(opened).arrays.values():
        array.read().result()


if __name__ == "__main__":
    main(tyro.cli(Settings))
