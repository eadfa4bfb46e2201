"""Recall against the number of pairs, pair by pair where rules might jump: a table.

    python benchmarks/curve.py pairs.npz

Every size takes the first pairs of one order for each seed, so that one size differs from the next
by what was added alone. Queries are scored one at a time.
"""

import dataclasses
from pathlib import Path

import numpy as np
import rivals
import tyro
from measure import machine, print_table
from methods import anchors_of
from real_pairs import Embedded, load, split
from tyro.conf import Positional

from asif_jax import methods
from asif_jax.core.anchors import Anchors
from asif_jax.methods import Method, rules


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure."""

    sources: Positional[tuple[Path, ...]]
    """.npz files with image [N, d] and caption [N, c, e], or folders; all in one."""
    sizes: tuple[int, ...] = (
        *(100, 200, 300, 400, 490, 499, 500, 501, 510, 700, 790, 799, 800, 801, 810, 1000),
        *(2000, 3000, 3990, 3999, 4000, 4001, 4010, 5000),
    )
    """Numbers of pairs."""
    test: int = 1000
    """Pairs to test on."""
    seeds: int = 3
    """Repetitions, on other pairs."""


def of_size(pairs: Anchors, size: int) -> Anchors:
    """The first pairs; the others stay in dead slots, so that all sizes share their programs."""
    return pairs._replace(live=np.arange(pairs.capacity) < size)


def candidates(size: int) -> dict[str, Method]:
    """The methods at this size; the paper's k goes by slots, so it is given here."""
    return {
        "two cosines, by rule": methods.best(),
        "paper's method, by rule": methods.paper(k=rules.paper_k(size)),
    }


def recall(method: Method, pairs: Anchors, test: Embedded) -> float:
    """Recall@10, the mean of both directions."""
    texts, owners = rivals.texts_of(test)
    scores = rivals.scores_of(method, method.fit(pairs), test.images, texts)
    found = rivals.recall(scores, owners)
    return (found.text_10 + found.image_10) / 2


def main(settings: Settings) -> None:
    pairs = load(settings.sources)
    print(f"{machine()}; {settings}; {len(pairs.images)} pairs in all", flush=True)
    found: dict[str, list[list[float]]] = {name: [] for name in candidates(1)}
    splits = [
        split(pairs, train=max(settings.sizes), test=settings.test, seed=seed)
        for seed in range(settings.seeds)
    ]
    trains = [anchors_of(train) for train, _ in splits]
    for size in settings.sizes:
        for name, method in candidates(size).items():
            each = zip(trains, splits, strict=True)
            found[name].append([recall(method, of_size(t, size), s.test) for t, s in each])
    show(settings.sizes, {name: np.asarray(rows) for name, rows in found.items()})


def show(sizes: tuple[int, ...], found: dict[str, np.ndarray]) -> None:
    """Means over seeds, and how much each differs from the size before it, for each added pair."""
    header, rows = ["pairs"], [[f"{size:,}"] for size in sizes]
    for name, recalls in found.items():
        header += [f"{name}: recall@10", "± over seeds", "step"]
        means = recalls.mean(axis=1)
        steps = ["", *(f"{step:+.4f}" for step in np.diff(means))]
        for row, mean, each, step in zip(rows, means, recalls, steps, strict=True):
            row += [f"{mean:.4f}", f"{each.std():.4f}", step]
    print_table(header, rows)


if __name__ == "__main__":
    main(tyro.cli(Settings))
