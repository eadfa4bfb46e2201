"""Fitting the recommended method at scale, and a query of it, beside what neither can do without.

    python benchmarks/fitting.py                     # the paper's size: 16 GiB and some minutes
    python benchmarks/fitting.py --pairs 50000

The limit of a fit is the time of its covariance products. The limit of a query is `project` on the
same anchors, the paper's algorithm.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import synthetic
import tyro
from measure import host_peak_bytes, machine, median_seconds, print_table

import asif_jax as asif
from asif_jax import methods
from asif_jax.core.anchors import Anchors

_BLOCK = 1 << 13


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the problem."""

    pairs: int = 1_600_000
    """Number of pairs n."""
    dimensions: tuple[int, int] = (1280, 384)
    """Of images and texts."""
    batches: tuple[int, ...] = (1, 128)
    """Images, and texts, to a query."""
    k: int = 800
    """Similarities that `project` keeps, as the method does."""
    repeats: int = 3
    """Timed rounds, after one that compiles; medians are printed. With 0, that one is printed."""


def pairs_of(settings: Settings, count: int, *, seed: int) -> dict[str, np.ndarray]:
    """Unit embeddings in bfloat16, of images without negative entries, made in blocks."""
    names = dict(zip(("image", "text"), settings.dimensions, strict=True))
    arrays = {m: _aligned(count, width) for m, width in names.items()}
    for start in range(0, count, _BLOCK):
        concept_key, pair_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), start))
        concepts = synthetic.concepts_of(concept_key, _BLOCK)
        for modality, (name, width) in enumerate(names.items()):
            options = {"modality": modality, "dimension": width, "dtype": "bfloat16"}
            part = np.asarray(synthetic.embed(pair_key, concepts, **options))
            part = np.abs(part) if name == "image" else part
            arrays[name][start : start + _BLOCK] = part[: count - start]
    return arrays


def _aligned(rows: int, width: int) -> np.ndarray:
    """An empty bfloat16 array that JAX takes as it is, without a copy."""
    buffer = np.empty(2 * rows * width + 64, np.uint8)
    first = -buffer.ctypes.data % 64
    return buffer[first : first + 2 * rows * width].view(jnp.bfloat16).reshape(rows, width)


@jax.jit
def products(images: jax.Array, texts: jax.Array) -> tuple[jax.Array, ...]:
    """The products of images, of texts and between them, in float32: the limit of a fit.

    A symmetric product costs as much as any other here, as it does in a plain call.
    """
    # As bits, since XLA's CPU backend would convert all of it at once.
    bits = [jax.lax.bitcast_convert_type(side, jnp.uint16) for side in (images, texts)]
    zeros = [jnp.zeros([a.shape[1], b.shape[1]]) for a, b in _sides(images, texts)]

    def add(sums: list[jax.Array], start: jax.Array) -> tuple[list[jax.Array], None]:
        parts = [jax.lax.dynamic_slice_in_dim(side, start, size) for side in bits]
        x, y = (
            jax.lax.bitcast_convert_type(part, jnp.bfloat16).astype(jnp.float32) for part in parts
        )
        # Otherwise the products are of bfloat16, which XLA's CPU backend has none of.
        x, y = jax.lax.optimization_barrier((x, y))
        found = [a.T @ b for a, b in _sides(x, y)]
        return [total + new for total, new in zip(sums, found, strict=True)], None

    n = images.shape[0]
    size = min(_BLOCK, n)
    # What does not fill a block is left out.
    return tuple(jax.lax.scan(add, zeros, size * jnp.arange(n // size))[0])


def _sides(x: jax.Array, y: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    return [(x, x), (y, y), (x, y)]


def fits(settings: Settings, pairs: Anchors, held: list[Any]) -> list[list[object]]:
    """Rows of the fit; `held` gets the state."""
    method = methods.best()
    sides = pairs.embeddings["image"], pairs.embeddings["text"]

    def fit() -> Any:
        held[:] = [method.fit(pairs)]
        return held

    runs: dict[str, Callable[[], object]] = {
        "covariance products alone": lambda: products(*sides),
        "sums measured": lambda: method.measure(pairs),
        "fit": fit,
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, int] = {name: 0 for name in runs}
    for _ in range(settings.repeats + 1):
        for name, run in runs.items():
            # A state of former rounds is no part of what a fit takes.
            held.clear()
            start = time.perf_counter()
            peaks[name] = max(peaks[name], host_peak_bytes(run))
            seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(s[1:] or s)) for name, s in seconds.items()}
    limit = medians["covariance products alone"]
    return [[name, s, s / limit, f"{peaks[name] / 2**30:.2f}"] for name, s in medians.items()]


def queries(settings: Settings, pairs: Anchors, state: Any) -> list[list[object]]:
    """Rows of the queries, an image and a text of each pair represented and all scored."""
    method = methods.best()

    @jax.jit
    def ours(state: Any, images: jax.Array, texts: jax.Array) -> jax.Array:
        left, right = (
            method.represent(state, images, "image"),
            method.represent(state, texts, "text"),
        )
        return method.score(state, left, right)

    @jax.jit
    def paper(anchors: Anchors, images: jax.Array, texts: jax.Array) -> jax.Array:
        project = functools.partial(asif.project, k=k, p=8.0, normalized=True)
        left = project(images, anchors.embeddings["image"])
        return asif.similarity(left, project(texts, anchors.embeddings["text"]))

    k = min(settings.k, settings.pairs)
    rows = []
    for batch in settings.batches:
        made = pairs_of(settings, batch, seed=1)
        asked = [jnp.asarray(made[m], jnp.float32) for m in ("image", "text")]
        runs = {
            "project": functools.partial(paper, pairs, *asked),
            "ours": functools.partial(ours, state, *asked),
        }
        seconds = median_seconds(runs, repeats=max(3, settings.repeats))
        for name, s in seconds.items():
            rows.append([f"query of {batch}, {name}", s, s / seconds["project"], ""])
    return rows


def main(settings: Settings) -> None:
    print(f"{machine()}; {settings}", flush=True)
    arrays = pairs_of(settings, settings.pairs, seed=0)
    live = jnp.ones(settings.pairs, bool)
    pairs = Anchors({m: jnp.asarray(array) for m, array in arrays.items()}, live)
    size = sum(array.nbytes for array in arrays.values())
    print(f"{size / 2**30:.2f} GiB of pairs", flush=True)
    held: list[Any] = []
    rows = fits(settings, pairs, held)
    rows += queries(settings, pairs, held[0])
    print_table(["", "seconds", "times the limit", "GiB beside the pairs, at most"], rows)


if __name__ == "__main__":
    main(tyro.cli(Settings))
