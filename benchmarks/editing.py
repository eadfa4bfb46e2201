"""Pairs added to and taken from a stored model that serves: seconds to the next query.

    python benchmarks/editing.py

The model is compared to one that is fitted anew to the store's pairs. Two such fits differ by
rounding themselves, which the last rows set beside it: sums in another order, and opening again.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro
from measure import machine, print_table

from asif_jax import store
from asif_jax.jobs import serving
from asif_jax.model import Model

_LATENT = 64
_QUERIES = 64


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the problem."""

    pairs: int = 6000
    """Pairs in the store."""
    dimensions: tuple[int, int] = (1280, 384)
    """Of images and texts."""
    captions: int = 5
    """Texts to a pair."""
    sizes: tuple[int, ...] = (1, 10, 100)
    """Pairs to add, or to remove, at once."""
    repeats: int = 5
    """Timed edits of each size, after one that compiles; medians are printed."""


def embeddings(settings: Settings, count: int) -> dict[str, np.ndarray]:
    """Non-negative images and signed captions of one cause each."""
    rng = np.random.default_rng(0)
    cause = rng.normal(size=[count, _LATENT]).astype(np.float32)
    d, e = settings.dimensions
    maps = [rng.normal(size=[_LATENT, width]).astype(np.float32) for width in (d, e)]
    images = np.abs(cause @ maps[0] + 0.5 * rng.standard_normal([count, d], np.float32))
    texts = (cause @ maps[1])[:, None]
    texts = texts + 2.0 * rng.standard_normal([count, settings.captions, e], np.float32)
    return {"image": images, "text": texts}


def stored(rows: range, captions: int) -> list[store.StoredPair]:
    return [
        store.StoredPair(f"{row}.jpg", tuple(f"Caption {c} of {row}." for c in range(captions)))
        for row in rows
    ]


@dataclasses.dataclass
class Served:
    """A store, the model that serves from it, and what has been added so far."""

    settings: Settings
    opened: Any
    model: Model
    arrays: dict[str, np.ndarray]
    used: int

    def query(self, model: Model | None = None) -> np.ndarray:
        """Scores of a few images and texts."""
        model = self.model if model is None else model
        left = model.represent(self.arrays["image"][:_QUERIES], "image")
        right = model.represent(self.arrays["text"][:_QUERIES, 0], "text")
        return np.asarray(model.score(left, right))

    def add(self, count: int) -> None:
        rows = range(self.used, self.used + count)
        part = {m: array[rows.start : rows.stop] for m, array in self.arrays.items()}
        pairs = stored(rows, self.settings.captions)
        self.model, _ = serving.insert(self.opened, self.model, part, pairs)
        self.used += count

    def remove(self, count: int) -> None:
        rows = np.flatnonzero(self.model.anchors.live)[::50][:count]
        self.model = serving.remove(self.opened, self.model, rows)

    def refitted(self) -> Model:
        """The model that the store gives when it is opened anew."""
        capacity = self.model.anchors.capacity
        model = store.open_model(store.snapshot(self.opened), capacity=capacity)
        return jax.block_until_ready(model.state) and model

    def reordered(self) -> Model:
        """The model, its method fitted to sums over the same pairs in another order."""
        anchors, method = self.model.anchors, self.model.method
        order = np.random.default_rng(0).permutation(anchors.capacity)
        sums = method.measure(jax.tree.map(lambda array: array[order], anchors))
        return self.model._replace(state=method.fit(anchors, sums))


def serve(settings: Settings, directory: str) -> Served:
    room = 2 * (settings.repeats + 1) * sum(settings.sizes)
    arrays = embeddings(settings, settings.pairs + room)
    records = {m: store.EncoderRecord(m, m) for m in arrays}
    dimensions = dict(zip(arrays, settings.dimensions, strict=True))
    opened = store.create(directory, store.Header(records, dimensions, several=("text",)))
    part = {m: array[: settings.pairs] for m, array in arrays.items()}
    store.append(opened, part, stored(range(settings.pairs), settings.captions))
    model = store.open_model(store.snapshot(opened), capacity=settings.pairs + room)
    return Served(settings, opened, model, arrays, settings.pairs)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(served: Served) -> list[list[object]]:
    """A row for each kind of edit: median seconds, and the largest difference to a refit."""
    repeats = served.settings.repeats
    served.query()
    rows: list[list[object]] = [["query", np.median(_times(served.query, repeats)), ""]]
    for count in served.settings.sizes:
        for name, edit in (("add", served.add), ("remove", served.remove)):
            taken = _times(
                lambda edit=edit, count=count: (edit(count), served.query()), repeats + 1
            )
            refit = served.refitted()
            largest = np.abs(served.query() - served.query(refit)).max()
            row = [f"{name} {count}, and next query", np.median(taken[1:]), f"{largest:.1e}"]
            rows.append(row)
    refits = _times(lambda: served.query(served.refitted()), repeats)
    rows.append(["open the store anew, and next query", np.median(refits), ""])
    floor = np.abs(served.query(served.reordered()) - served.query(served.refitted())).max()
    return [*rows, ["two fits, sums in another order", "", f"{floor:.1e}"]]


def _times(run: Callable[[], object], repeats: int) -> list[float]:
    return [seconds(run) for _ in range(repeats)]


def main(settings: Settings) -> None:
    print(f"{machine()}; {settings}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        served = serve(settings, directory)
        print(f"method {served.model.method.name}", flush=True)
        print_table(["", "seconds", "largest difference to a refit"], measure(served))
        largest = np.abs(served.query()).max()
        print(f"scores are {largest:.2f} at most")


if __name__ == "__main__":
    main(tyro.cli(Settings))
