"""Retrieval by the recommended method and by its rivals: same embeddings, same pairs, same test.

    python benchmarks/rivals.py pairs.npz                      # or a folder of captioned images
    python benchmarks/rivals.py pairs.npz --naming stamps.npz  # and images of another kind named

Queries and gallery are all captions of the test images; an image finds any of its captions. Every
row gets all captions of its training pairs and chooses its settings by pairs that it holds out of
those. Hubs are corrected one query at a time, by the training pairs (`with_csls`), or over the
batch as well (`csls`). Trained heads and rows called uncorrected have the second alone.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import methods
import numpy as np
import tyro
from measure import machine, print_table
from real_pairs import Embedded, load, split
from tyro.conf import Positional

from asif_jax.methods import Method, hubness
from asif_jax.methods.comparison import Naming

_HEADER = ["", "@1 alone", "@1 batch", "@10 alone: to text", "to image", "mean"]
_HEADER += ["@10 batch: to text", "to image", "mean", "named right", "choosing, s", "fitting, s"]
_SECONDS = ("choosing", "fitting")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to compare."""

    sources: Positional[tuple[Path, ...]]
    """.npz files with image [N, d] and caption [N, c, e], or folders; all in one."""
    naming: Path | None = None
    """An .npz file or folder of captioned images of another kind, to be named by their captions."""
    sizes: tuple[int, ...] = (100, 500, 2000, 5000)
    """Numbers of training pairs."""
    test: int = 1000
    """Pairs to test on."""
    seeds: int = 5
    """Repetitions, on other pairs."""
    only: tuple[str, ...] = ()
    """Names of rows; by default all."""


class Recall(NamedTuple):
    """Recall in each direction, at one and at ten."""

    text_1: float
    text_10: float
    image_1: float
    image_10: float


class Result(NamedTuple):
    """What one row reaches on one split.

    Attributes:
      alone: one query at a time.
      batch: corrected over all test queries.
      named: whether each input was named right, [b] bool; None without any.
      choosing: seconds.
      fitting: seconds.
    """

    alone: Recall
    batch: Recall
    named: np.ndarray | None
    choosing: float
    fitting: float


def measure(
    row: methods.Row, train: methods.Training, test: Embedded, naming: Naming | None = None
) -> Result:
    fitted = methods.run(row, train)
    texts, owners = texts_of(test)
    scores = scores_of(fitted.method, fitted.state, test.images, texts)
    named = None if naming is None else named_right(fitted.method, fitted.state, naming)
    corrected = np.asarray(hubness.csls(scores))
    alone, batch = (recall(each, owners) for each in (scores, corrected))
    print(f"{row.name} {dict(fitted.setting)}: {alone}, {batch}", file=sys.stderr, flush=True)
    return Result(alone, batch, named, fitted.choosing, fitted.fitting)


def scores_of(method: Method, state: Any, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    left, right = method.represent(state, images, "image"), method.represent(state, texts, "text")
    return np.asarray(method.score(state, left, right))


def named_right(method: Method, state: Any, naming: Naming) -> np.ndarray:
    """Which inputs get their own caption, one at a time, the captions uncorrected."""
    labels = hubness.uncorrected(method.represent(state, naming.prompts[:, 0], "text"))
    scores = method.score(state, method.represent(state, naming.inputs, "image"), labels)
    return np.asarray(scores).argmax(axis=1) == naming.labels


def naming_of(pairs: Embedded) -> Naming:
    """Images to be named by first captions; equal captions are one label."""
    captions, labels = np.unique(pairs.captions[:, 0], axis=0, return_inverse=True)
    return Naming(pairs.images, captions[:, None], labels.ravel())


def recall(scores: np.ndarray, owners: np.ndarray) -> Recall:
    both = ranks(scores, owners)
    return Recall(*(float(np.mean(found <= at)) for found in both for at in (1, 10)))


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


def main(settings: Settings) -> None:
    pairs = load(settings.sources)
    naming = None if settings.naming is None else naming_of(load((settings.naming,)))
    rows = [row for row in methods.ALL if not settings.only or row.name in settings.only]
    print(f"{machine()}; {settings}; {len(pairs.images)} pairs in all", flush=True)
    if naming is not None:
        print(f"{len(naming.labels)} images to name by {len(naming.prompts)} different captions")
    for size in settings.sizes:
        results: dict[str, list[Result]] = {row.name: [] for row in rows}
        for seed in range(settings.seeds):
            train, test = split(pairs, train=size, test=settings.test, seed=seed)
            prepared = methods.training(train)
            for row in rows:
                results[row.name].append(measure(row, prepared, test, naming))
        print(f"\n{size} pairs, {settings.test} to test on, {settings.seeds} seeds")
        print_table(_HEADER, [line(row, results[row.name]) for row in rows])


def line(row: methods.Row, results: list[Result]) -> list[object]:
    """Means over seeds; seconds are medians, without the first seed, which compiles."""
    cells: list[object] = [row.name + (" (trained)" if row.trained else "")]
    directions = [[r.alone for r in results], [r.batch for r in results]]
    for recalls in directions:
        each = np.mean([[r.text_1, r.image_1] for r in recalls], axis=1)
        cells.append(f"{each.mean():.3f} ± {each.std():.3f}")
    for recalls in directions:
        to_text, to_image = np.mean([[r.text_10, r.image_10] for r in recalls], axis=0)
        each = np.mean([[r.text_10, r.image_10] for r in recalls], axis=1)
        cells += [f"{to_text:.3f}", f"{to_image:.3f}", f"{each.mean():.3f} ± {each.std():.3f}"]
    cells.append(named_share([r.named for r in results if r.named is not None]))
    timed = results[1:] or results
    return [*cells, *(f"{np.median([getattr(r, s) for r in timed]):.2f}" for s in _SECONDS)]


def named_share(named: list[np.ndarray]) -> str:
    """The share named right, and its standard error over inputs, each the mean over seeds."""
    if not named:
        return ""
    each = np.mean(named, axis=0)
    return f"{each.mean():.3f} ± {each.std(ddof=1) / np.sqrt(len(each)):.3f}"


if __name__ == "__main__":
    main(tyro.cli(Settings))
