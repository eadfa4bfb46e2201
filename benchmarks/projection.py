"""Time of the exact projection against the matrix product it contains, and against its peers.

    python benchmarks/projection.py                                 # the paper's size
    python benchmarks/projection.py --anchors 131072 --dtype bfloat16

PyTorch and FAISS are compared with if they are installed (torch, faiss-cpu).
"""

import dataclasses
import functools
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import asif_jax as asif
from asif_jax.cosine import cosine_similarities


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the problem."""

    anchors: int = 1_572_864
    """Number of pairs n."""
    dimension: int = 384
    """Dimension d of the embeddings."""
    batch: int = 128
    """Embeddings projected at once."""
    k: int = 800
    """Similarities kept."""
    dtype: str = "float32"
    """Of the anchors: float32 or bfloat16."""
    repeats: int = 5
    """Timed runs of each, after one that is not; medians are printed."""


Row = tuple[str, Callable[[], object]]


def ours(settings: Settings, embeddings: jax.Array, anchors: jax.Array) -> Iterator[Row]:
    @jax.jit
    def limit(x, a):
        return cosine_similarities(x, a, normalized=True).max(axis=-1)

    @jax.jit
    def by_sorting(x, a):
        return jax.lax.top_k(cosine_similarities(x, a, normalized=True), settings.k)

    project = functools.partial(asif.project, k=settings.k, normalized=True)
    live = jnp.ones(settings.anchors, bool)
    yield "limit: product and row maximum", lambda: limit(embeddings, anchors)
    yield "asif.project", lambda: project(embeddings, anchors)
    yield "asif.project, live mask", lambda: project(embeddings, anchors, live=live)
    yield "product and lax.top_k", lambda: by_sorting(embeddings, anchors)


def peers(settings: Settings, embeddings: jax.Array, anchors: jax.Array) -> Iterator[Row]:
    x, a = np.asarray(embeddings, np.float32), np.asarray(anchors, np.float32)
    yield "NumPy product and argpartition", lambda: np.argpartition(x @ a.T, -settings.k, axis=-1)
    if importlib.util.find_spec("torch"):
        import torch

        tx, ta = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(a))
        yield "PyTorch product and topk", lambda: torch.topk(tx @ ta.T, settings.k)
    if importlib.util.find_spec("faiss"):
        import faiss

        index = faiss.IndexFlatIP(settings.dimension)
        index.add(a)
        yield "FAISS flat", lambda: index.search(x, settings.k)


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main(settings: Settings) -> None:
    keys = jax.random.split(jax.random.key(0))
    embeddings = asif.normalize(jax.random.normal(keys[0], [settings.batch, settings.dimension]))
    anchors = jax.random.normal(keys[1], [settings.anchors, settings.dimension])
    anchors = asif.normalize(anchors).astype(settings.dtype)
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores, {platform.machine()}, "
        f"jax {jax.__version__}; {settings}"
    )
    print(f"{'':34}{'seconds':>10}{'x limit':>10}")
    limit = None
    for rows in (ours(settings, embeddings, anchors), peers(settings, embeddings, anchors)):
        for name, run in rows:
            seconds = median_seconds(run, settings.repeats)
            limit = limit or seconds
            print(f"{name:34}{seconds:10.4f}{seconds / limit:10.2f}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
