"""Scores of representations that are there already: a batch by classes, one query by a gallery.

    pip install torch faiss-cpu
    python benchmarks/scoring.py

The largest gallery holds 6.4 GB.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
import tyro
from measure import machine, median_seconds, peak_bytes, print_table

import asif_jax as asif


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes of the problem."""

    anchors: int = 1_572_864
    """Number of pairs n."""
    k: int = 800
    """Similarities kept."""
    sizes: tuple[tuple[int, int], ...] = ((256, 1000), (1, 100_000), (64, 100_000), (1, 1_000_000))
    """Queries and gallery items of each row."""
    repeats: int = 5
    """Timed rounds, after one that is not; medians are printed."""
    peers: bool = True
    """Compare with PyTorch's product of sparse matrices, up to 100,000 items."""


@functools.partial(jax.jit, static_argnames=("rows", "settings"))
def draw(key: jax.Array, *, rows: int, settings: Settings) -> asif.RelativeRepresentation:
    """Random representations, a few at a time so that nothing else of their size is held."""
    few = min(rows, 1000)

    def part(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = asif.normalize(jax.random.uniform(key, [few, settings.k]))
        return values, jax.random.randint(key, [few, settings.k], 0, settings.anchors)

    parts = jax.lax.map(part, jax.random.split(key, rows // few))
    values, indices = (array.reshape(rows, settings.k) for array in parts)
    return asif.RelativeRepresentation(values, indices, settings.anchors)


def measure(settings: Settings, b: int, m: int) -> list[object]:
    """One row of the table."""
    queries, gallery = jax.block_until_ready(
        [draw(jax.random.key(rows), rows=rows, settings=settings) for rows in (b, m)]
    )
    compiled = asif.similarity.lower(queries, gallery).compile()
    taken = peak_bytes(compiled, queries, gallery)
    runs = {"asif": lambda: compiled(queries, gallery)}
    if settings.peers and m <= 100_000:
        runs["torch"] = sparse_product(queries, gallery)
    seconds = median_seconds(runs, repeats=settings.repeats)
    torch_seconds = seconds.get("torch", "")
    return [f"{b:,} x {m:,}", seconds["asif"], torch_seconds, round(taken / 2**20)]


def sparse_product(queries, gallery) -> Callable[[], object]:
    import peers
    import torch

    left, right = (
        peers.sparse(
            torch.tensor(np.asarray(r.values)), torch.tensor(np.asarray(r.indices)), r.size
        )
        for r in (queries, gallery)
    )
    return lambda: torch.sparse.mm(left, right.T).to_dense()


def main(settings: Settings) -> None:
    print(f"{machine()}; {settings}", flush=True)
    rows = [measure(settings, b, m) for b, m in settings.sizes]
    print_table(
        ["queries x items", "asif, seconds", "PyTorch sparse, seconds", "asif, peak MiB"], rows
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
