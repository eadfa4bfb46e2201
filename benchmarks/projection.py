"""Time of the projection against the matrix product it contains, and against its peers.

    pip install torch faiss-cpu
    python benchmarks/projection.py                                 # the paper's size
    python benchmarks/projection.py --anchors 131072 --dtype bfloat16
    python benchmarks/projection.py --dimension 768 --batch 1024 --dtype bfloat16 --no-peers

On an accelerator leave the peers out: they run on the CPU.
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import synthetic
import tyro
from measure import Runs, machine, median_seconds, print_table

import asif_jax as asif
from asif_jax.core.cosine import cosine_similarities


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
    probes: int = 128
    """Clusters that the approximate projection searches."""
    repeats: int = 5
    """Timed rounds, after one that is not; medians are printed."""
    peers: bool = True
    """Compare with NumPy, PyTorch and FAISS."""


def limits(settings: Settings, x: jax.Array, a: jax.Array) -> Runs:
    @jax.jit
    def product_and_maximum(x, a):
        return cosine_similarities(x, a, normalized=True).max(axis=-1)

    @jax.jit
    def product(x, a):
        return cosine_similarities(x, a, normalized=True)

    similarities = product(x, a)
    read_and_write = jax.jit(lambda s: s + 1.0)
    on_accelerator = jax.default_backend() != "cpu"
    return {"limit: product and row maximum": lambda: product_and_maximum(x, a)} | (
        {
            "product alone": lambda: product(x, a),
            "one read and write of the similarities": lambda: read_and_write(similarities),
        }
        if on_accelerator
        else {}
    )


def exact(settings: Settings, x: jax.Array, a: jax.Array) -> Runs:
    @jax.jit
    def by_sorting(x, a):
        return jax.lax.top_k(cosine_similarities(x, a, normalized=True), settings.k)

    project = functools.partial(asif.project, k=settings.k, normalized=True)
    live = jnp.ones(settings.anchors, bool)
    half = a.astype(jnp.bfloat16)
    return {
        "asif.project": lambda: project(x, a),
        "asif.project, live mask": lambda: project(x, a, live=live),
        "asif.project, within 1 GiB": lambda: project(x, a, memory=2**30),
        "asif.project, within 128 MiB": lambda: project(x, a, memory=2**27),
        "asif.project, bfloat16": lambda: project(x, half),
        "product and lax.top_k": lambda: by_sorting(x, a),
    }


def peer_runs(settings: Settings, x: np.ndarray, a: np.ndarray, recall: float) -> tuple[Runs, dict]:
    """NumPy, PyTorch and FAISS, and what recall those that are not exact reach."""
    import faiss
    import peers
    import torch

    k, rows = settings.k, np.argpartition(x @ a.T, -settings.k, axis=-1)[:, -settings.k :]
    tx, ta = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(a))
    flat = faiss.IndexFlatIP(settings.dimension)
    flat.add(a)
    start = time.perf_counter()
    inverted = peers.faiss_ivf(a, clusters=max(1, 2 ** round(np.log2(len(a) / 384))))
    print(f"FAISS clusters the anchors in {time.perf_counter() - start:.0f} s", flush=True)
    name = "FAISS IVF, {} of {} lists"
    reached = peers.probe_for_recall(inverted, x, rows, recall=recall)
    name = name.format(inverted.nprobe, inverted.nlist)
    runs: Runs = {
        "NumPy product and argpartition": lambda: np.argpartition(x @ a.T, -k, axis=-1),
        "PyTorch product and topk": lambda: torch.topk(tx @ ta.T, k),
        "FAISS flat": lambda: flat.search(x, k),
        name: lambda: inverted.search(x, k),
    }
    return runs, {name: reached}


def main(settings: Settings) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    shape = {"modality": 0, "dimension": settings.dimension}
    concepts = (
        synthetic.concepts_of(keys[i], n) for i, n in ((0, settings.batch), (1, settings.anchors))
    )
    x = synthetic.embed(keys[2], next(concepts), **shape)
    a = synthetic.embed(keys[3], next(concepts), **shape, dtype=settings.dtype)
    print(f"{machine()}; {settings}", flush=True)

    start = time.perf_counter()
    clusters = jax.block_until_ready(asif.approximate.cluster(a))
    print(f"asif clusters the anchors in {time.perf_counter() - start:.0f} s", flush=True)
    curve = asif.approximate.recall_curve(x, clusters, k=settings.k)
    name = f"asif.approximate, {settings.probes} of {len(curve)} clusters"
    recall = {name: float(curve[settings.probes - 1])}
    approximate = functools.partial(asif.approximate.project, k=settings.k, probes=settings.probes)
    runs = {
        **limits(settings, x, a),
        **exact(settings, x, a),
        name: lambda: approximate(x, clusters),
    }
    if settings.peers:
        rivals, reached = peer_runs(
            settings, np.asarray(x), np.asarray(a, np.float32), recall[name]
        )
        runs, recall = runs | rivals, recall | reached
    seconds = median_seconds(runs, repeats=settings.repeats)
    limit = next(iter(seconds.values()))
    print_table(
        ["", "seconds", "x limit", "recall"],
        [[run, s, s / limit, recall.get(run, "")] for run, s in seconds.items()],
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
