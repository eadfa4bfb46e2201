"""Retrieval by ASIF and by its rivals: same embeddings, same pairs, same pairs to test on.

    python benchmarks/rivals.py pairs.npz                      # or a folder of captioned images
    python benchmarks/rivals.py photos/ --sizes 800 --test 200

Queries and gallery are all captions of the test images; an image finds any of its captions. "Real
captions" is the area under the ROC curve that tells an image's own caption from another's.
"""

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

import methods
import numpy as np
import tyro
from measure import machine, print_table
from real_pairs import Embedded, load, split
from tyro.conf import Positional

_HEADER = ["", "image to text @1", "@10", "text to image @1", "@10", "real captions"]
_HEADER += ["choosing, s", "fitting, s", "scoring, s"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to compare."""

    sources: Positional[tuple[Path, ...]]
    """.npz files with image [N, d] and caption [N, c, e], or folders; all in one."""
    sizes: tuple[int, ...] = (500, 2000, 5000)
    """Numbers of training pairs."""
    test: int = 1000
    """Pairs to test on."""
    seeds: int = 5
    """Repetitions, on other pairs."""
    only: tuple[str, ...] = ()
    """Names of rows; by default all."""


class Result(NamedTuple):
    """What one method reaches on one split."""

    image_to_text_1: float
    image_to_text_10: float
    text_to_image_1: float
    text_to_image_10: float
    real_captions: float
    choosing: float
    fitting: float
    scoring: float


def measure(method: methods.Method, train: Embedded, test: Embedded, *, seed: int) -> Result:
    fitted = methods.run(method, train)
    texts, owners = texts_of(test)
    start = time.perf_counter()
    scores = fitted.score(test.images, texts)
    scoring = time.perf_counter() - start
    to_text, to_image = ranks(scores, owners)
    recalls = [np.mean(found <= at) for found in (to_text, to_image) for at in (1, 10)]
    real = area_under_roc(*own_and_other(scores, owners, seed=seed))
    return Result(*recalls, real, fitted.choosing, fitted.fitting, scoring)


def texts_of(pairs: Embedded) -> tuple[np.ndarray, np.ndarray]:
    """All captions, [m, e], and whose each is, [m]."""
    present = np.any(pairs.captions != 0, axis=-1)
    return pairs.captions[present], np.nonzero(present)[0]


def ranks(scores: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank, from 1, of the first own caption of each image, and of the own image of each caption.

    Of equals, half are taken to come before, so that a constant score finds nothing.
    """
    own = owners == np.arange(len(scores))[:, None]
    best = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
    right = scores[owners, np.arange(len(owners))]

    def rank(others: np.ndarray, mine: np.ndarray, axis: int) -> np.ndarray:
        above, equal = (others > mine).sum(axis=axis), (others == mine).sum(axis=axis)
        return 1 + above + np.maximum(equal - 1, 0) / 2

    return rank(scores, best, 1), rank(scores, right[None], 0)


def own_and_other(
    scores: np.ndarray, owners: np.ndarray, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of every caption with its own image, and with that of another pair drawn at random."""
    shift = np.random.default_rng(seed).integers(1, len(scores), size=len(owners))
    columns = np.arange(len(owners))
    return scores[owners, columns], scores[(owners + shift) % len(scores), columns]


def area_under_roc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive score exceeds a negative one; equals count half."""
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left")
    not_above = np.searchsorted(order, positive, side="right")
    return float((below + not_above).mean() / 2 / len(negative))


def main(settings: Settings) -> None:
    pairs = load(settings.sources)
    chosen = [m for m in methods.ALL if not settings.only or m.name in settings.only]
    print(f"{machine()}; {settings}; {len(pairs.images)} pairs in all", flush=True)
    for size in settings.sizes:
        results: dict[str, list[Result]] = {method.name: [] for method in chosen}
        for seed in range(settings.seeds):
            train, test = split(pairs, train=size, test=settings.test, seed=seed)
            for method in chosen:
                results[method.name].append(measure(method, train, test, seed=seed))
        print(f"\n{size} pairs, {settings.test} to test on, {settings.seeds} seeds")
        print_table(
            _HEADER,
            [row(method, results[method.name]) for method in chosen],
        )


def row(method: methods.Method, results: list[Result]) -> list[object]:
    values = np.asarray(results)
    # The first seed compiles.
    seconds = np.median(values[1:] if len(values) > 1 else values, axis=0)[5:]
    deviations = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    accuracy = [
        f"{mean:.3f} ± {deviation:.3f}"
        for mean, deviation in zip(values.mean(axis=0)[:5], deviations, strict=False)
    ]
    name = method.name + (" (trained)" if method.trained else "")
    return [name, *accuracy, *(f"{s:.2f}" for s in seconds)]


if __name__ == "__main__":
    main(tyro.cli(Settings))
