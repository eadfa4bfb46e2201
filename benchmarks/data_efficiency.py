"""Accuracy against the number of pairs, and against the share of wrong pairs: a table and a plot.

    pip install matplotlib
    python benchmarks/data_efficiency.py pairs.npz             # or a folder of captioned images

Pairs are drawn at random, other ones for each seed. A wrong pair has the captions of another.
"""

import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import methods
import numpy as np
import rivals
import tyro
from measure import machine, print_table
from real_pairs import Embedded, load, split
from tyro.conf import Positional

_ROWS = (
    methods.OURS,
    methods.WHITENED,
    methods.CCA,
    methods.RIDGE,
    methods.TWO_LAYERS,
    methods.PUBLISHED,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure."""

    sources: Positional[tuple[Path, ...]]
    """.npz files with image [N, d] and caption [N, c, e], or folders; all in one."""
    sizes: tuple[int, ...] = (100, 300, 1000, 3000, 5000)
    """Numbers of pairs."""
    wrong: tuple[float, ...] = (0.0, 0.2, 0.4)
    """Shares of wrong pairs, at `wrong_size` pairs."""
    wrong_size: int = 1000
    """Number of pairs of which some are wrong."""
    test: int = 1000
    """Pairs to test on."""
    seeds: int = 3
    """Repetitions, on other pairs."""
    plot: Path = Path("data_efficiency.svg")
    """The plot to write."""


def with_wrong(pairs: Embedded, share: float, *, seed: int) -> Embedded:
    """The captions of a share of the pairs, dealt round among them."""
    rows = np.random.default_rng(seed).permutation(len(pairs.images))
    rows = rows[: round(share * len(rows))]
    captions = pairs.captions.copy()
    captions[rows] = pairs.captions[np.roll(rows, 1)]
    return Embedded(pairs.images, captions)


def recall(row: methods.Row, train: methods.Training, test: Embedded) -> float:
    """Recall@10, the mean of both directions, one query at a time."""
    found = rivals.measure(row, train, test).alone
    return (found.text_10 + found.image_10) / 2


def measure(pairs: Embedded, settings: Settings, conditions: list[tuple[int, float]]) -> np.ndarray:
    """[rows, conditions, seeds] recall, for sizes and shares of wrong pairs."""
    result = np.zeros([len(_ROWS), len(conditions), settings.seeds])
    for column, (size, share) in enumerate(conditions):
        for seed in range(settings.seeds):
            train, test = split(pairs, train=size, test=settings.test, seed=seed)
            prepared = methods.training(with_wrong(train, share, seed=seed))
            for place, row in enumerate(_ROWS):
                result[place, column, seed] = recall(row, prepared, test)
    return result


def show(title: str, columns: list[str], values: np.ndarray) -> None:
    print(f"\n{title}")
    cells = [
        [f"{v.mean():.3f} ± {v.std(ddof=1) if v.size > 1 else 0:.3f}" for v in row]
        for row in values
    ]
    print_table(
        ["recall@10, mean of both ways", *columns],
        [[method.name, *row] for method, row in zip(_ROWS, cells, strict=True)],
    )


def plot(settings: Settings, by_size: np.ndarray, by_share: np.ndarray) -> None:
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "asif", "svg.fonttype": "none"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    panels = (
        (left, settings.sizes, by_size),
        (right, [100 * share for share in settings.wrong], by_share),
    )
    for axes, xs, values in panels:
        for method, rows in zip(_ROWS, values, strict=True):
            ours = method is methods.OURS
            axes.errorbar(
                xs,
                rows.mean(axis=1),
                yerr=rows.std(axis=1, ddof=1) if rows.shape[1] > 1 else None,
                label=method.name,
                linewidth=2 if ours else 1.2,
                linestyle="-" if ours else "--",
                marker="o",
                markersize=3,
                capsize=2,
            )
        axes.grid(alpha=0.3)
    left.set(xscale="log", xlabel="image-text pairs", ylabel="recall@10, mean of both ways")
    left.set_xticks(settings.sizes, list(map(_short, settings.sizes)), minor=False)
    left.minorticks_off()
    right.set(xlabel=f"wrong pairs of {settings.wrong_size:,}, %")
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(settings.plot, metadata={"Date": None})


def _short(size: int) -> str:
    return f"{size / 1000:g}k" if size >= 1000 else str(size)


def main(settings: Settings) -> None:
    pairs = load(settings.sources)
    print(f"{machine()}; {settings}; {len(pairs.images)} pairs in all", flush=True)
    by_size = measure(pairs, settings, [(size, 0.0) for size in settings.sizes])
    show("by number of pairs", [f"{size:,}" for size in settings.sizes], by_size)
    by_share = measure(pairs, settings, [(settings.wrong_size, s) for s in settings.wrong])
    show(
        f"{settings.wrong_size:,} pairs, some wrong",
        [f"{share:.0%} wrong" for share in settings.wrong],
        by_share,
    )
    plot(settings, by_size, by_share)
    print(f"\nplot: {settings.plot}")


if __name__ == "__main__":
    main(tyro.cli(Settings))
