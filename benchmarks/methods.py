"""The rows of the tables: ASIF in steps, and its rivals, each choosing its settings by itself.

A method sees training pairs alone. It holds some of them out to choose its settings, and is then
fitted to all of them.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rival_methods as rivals
from real_pairs import Embedded

import asif_jax as asif
from asif_jax.core import captions, projection
from asif_jax.methods import hubness, tuning, whitening

Score = rivals.Score

SHRINKAGES = (0.3, 1.0, 3.0, 10.0)
_MOST_HELD_OUT = 300


class Fitted(NamedTuple):
    """A method fitted to training pairs.

    Attributes:
      score: from images [b, d] and texts [m, e] to [b, m].
      setting: what it chose.
      choosing: seconds that took.
      fitting: seconds of the fit to all training pairs with that setting.
    """

    score: Score
    setting: Mapping[str, Any]
    choosing: float
    fitting: float


@dataclasses.dataclass(frozen=True)
class Method:
    """A row.

    Attributes:
      name: what the table says.
      fit: from what `prepare` gives, and a setting by keyword, to a score.
      prepare: what all settings need of the pairs.
      grid: the settings to choose from, given the number of pairs.
      choose: a choice of its own, from pairs to setting; by default by the grid.
      trained: by gradient descent.
    """

    name: str
    fit: Callable[..., Score]
    prepare: Callable[[Embedded], Any] = lambda pairs: pairs
    grid: Callable[[int], Mapping[str, Sequence]] = lambda n: {}
    choose: Callable[[Embedded], Mapping[str, Any]] | None = None
    trained: bool = False


def run(method: Method, pairs: Embedded) -> Fitted:
    start = time.perf_counter()
    choose = method.choose or functools.partial(choose_by_grid, method)
    setting = choose(pairs)
    chosen = time.perf_counter()
    score = method.fit(method.prepare(pairs), **setting)
    return Fitted(score, setting, chosen - start, time.perf_counter() - chosen)


def choose_by_grid(method: Method, pairs: Embedded) -> Mapping[str, Any]:
    """The setting of the highest recall@10, both ways, among pairs held out; first captions ask."""
    grid = method.grid(len(pairs.images))
    settings = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    if len(settings) == 1:
        return settings[0]
    n = len(pairs.images)
    held_out = min(_MOST_HELD_OUT, n // 5)
    recall = np.zeros(len(settings))
    for split in range(splits_for(n)):
        order = np.random.default_rng(split).permutation(n)
        asked, rest = pairs[order[:held_out]], method.prepare(pairs[order[held_out:]])
        for index, setting in enumerate(settings):
            scores = method.fit(rest, **setting)(asked.images, asked.captions[:, 0])
            own = np.eye(held_out, dtype=bool)
            for direction in (scores, scores.T):
                recall[index] += float(asif.metrics.recall_at_k(direction, own, k=10))
    return settings[int(recall.argmax())]


def splits_for(n: int) -> int:
    """Few pairs can hold out few, and do so more often."""
    return 3 if n <= 1000 else 2


def with_csls(fit: Callable[..., Score]) -> Callable[..., Score]:
    def corrected(prepared: Any, **setting: Any) -> Score:
        score = fit(prepared, **setting)
        return lambda x, y: np.asarray(hubness.csls(score(x, y)))

    return corrected


class Step(NamedTuple):
    """What an ASIF of the table does beyond the paper's."""

    every: str = "mean"
    whiten: bool = False
    csls: bool = False


def anchors_of(pairs: Embedded, step: Step) -> dict[str, np.ndarray]:
    texts = {
        "first": pairs.captions[:, 0],
        "mean": pairs.mean_captions(),
        "all": pairs.captions,
    }
    return {"image": pairs.images, "text": texts[step.every]}


def fit_asif(
    pairs: Embedded, *, step: Step, k: int, p: float, shrinkage: float | None = None
) -> Score:
    anchors = {m: jax.numpy.asarray(array) for m, array in anchors_of(pairs, step).items()}
    k = min(k, len(pairs.images))
    # The statistics of texts are those of single captions, which will be asked.
    spread = {"image": pairs.images, "text": pairs.captions.reshape(-1, pairs.captions.shape[-1])}
    spread["text"] = spread["text"][np.any(spread["text"] != 0, axis=-1)]
    fitted = {m: whitening.fit(array) for m, array in spread.items()} if step.whiten else {}

    def prepare(embeddings, modality: str):
        if not step.whiten:
            return jax.numpy.asarray(embeddings)
        return whitening.whiten(embeddings, fitted[modality], shrinkage=shrinkage)

    anchors = jax.block_until_ready({m: prepare(array, m) for m, array in anchors.items()})

    def represent(embeddings, modality: str) -> asif.RelativeRepresentation:
        asked = prepare(embeddings, modality)
        if anchors[modality].ndim == 2:
            return asif.project(asked, anchors[modality], k=k, p=p)
        found = captions.nearest_pairs(asked, anchors[modality], k, memory=2**29)
        return projection.represent_nearest(asked, *found, size=len(pairs.images), p=p)

    def score(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        scores = asif.similarity(represent(images, "image"), represent(texts, "text"))
        return np.asarray(hubness.csls(scores) if step.csls else scores)

    return score


def whitened_for_splits() -> Callable[[float], tuning.Transform]:
    """Transforms for `tuning.tune`, fitted once to the live anchors of each split."""
    known: dict = {}

    def fitted(live, m: str, array) -> whitening.Whitening:
        key = live.tobytes(), m
        if key not in known:
            rows = array.reshape(-1, array.shape[-1])
            alive = np.repeat(live, len(rows) // len(live)) & np.any(np.asarray(rows) != 0, axis=-1)
            known[key] = whitening.fit(rows, live=alive)
        return known[key]

    def by(shrinkage: float) -> tuning.Transform:
        def transform(anchors, queries, live):
            found = {m: fitted(np.asarray(live), m, array) for m, array in anchors.items()}
            return tuple(
                {m: whitening.whiten(side[m], found[m], shrinkage=shrinkage) for m in found}
                for side in (anchors, queries)
            )

        return transform

    return by


def choose_asif(pairs: Embedded, *, step: Step) -> Mapping[str, Any]:
    """Settings by `asif_jax.tuning`: k, p, and the shrinkage if asked."""
    n = len(pairs.images)
    live = n - min(_MOST_HELD_OUT, n // 5)
    options: dict[str, Any] = {"splits": 5, "ps": (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)}
    if step.whiten:
        ks = sorted({max(live // part, 1) for part in (10, 5, 2, 1)})
        options = {"splits": splits_for(n), "ks": ks, "ps": (0.7, 1.0, 1.5, 2.0, 3.0)}
    whitened_by = whitened_for_splits()
    surfaces = {
        shrinkage: tuning.tune(
            anchors_of(pairs, step),
            queries={"image": pairs.images, "text": pairs.captions[:, 0]},
            transform=whitened_by(shrinkage) if shrinkage else None,
            correct=hubness.csls if step.csls else None,
            **options,
        )
        for shrinkage in (SHRINKAGES if step.whiten else (None,))
    }
    choices = {shrinkage: tuning.best(surface) for shrinkage, surface in surfaces.items()}
    shrinkage = max(choices, key=lambda s: choices[s].recall)
    chosen = {"k": choices[shrinkage].k, "p": choices[shrinkage].p}
    return chosen | ({"shrinkage": shrinkage} if step.whiten else {})


def asif_method(name: str, step: Step, *, setting: Mapping[str, Any] | None = None) -> Method:
    choose = functools.partial(choose_asif, step=step)
    return Method(
        name,
        functools.partial(fit_asif, step=step),
        choose=choose if setting is None else lambda pairs: dict(setting),
    )


def means(pairs: Embedded) -> tuple[np.ndarray, np.ndarray]:
    """A rival that takes one text a pair gets the mean caption."""
    return pairs.images, pairs.mean_captions()


def moments(pairs: Embedded) -> rivals.Moments:
    return rivals.moments(*means(pairs))


def heads(pairs: Embedded, **setting: Any) -> Score:
    return rivals.contrastive(pairs.images, pairs.captions, seed=0, **setting)


def shrinkage_grid(n: int) -> Mapping[str, Sequence]:
    return {"shrinkage": SHRINKAGES}


PAPER = asif_method("ASIF, paper's k and p", Step("first"), setting={"k": 800, "p": 8.0})
TUNED = asif_method("ASIF, tuned", Step("first"))
EXTRAS = asif_method("ASIF, whitened, all captions, CSLS", Step("all", True, True))
WEIGHTED_CCA = Method("CCA, weighted", rivals.weighted_cca, moments, shrinkage_grid)
CORRECTED_CCA = dataclasses.replace(
    WEIGHTED_CCA, name="CCA, weighted, CSLS", fit=with_csls(WEIGHTED_CCA.fit)
)
RIDGE = Method(
    "ridge regression", rivals.ridge, moments, lambda n: {"penalty": (0.1, 0.3, 1.0, 3.0, 10.0)}
)
PROCRUSTES = Method("orthogonal Procrustes", rivals.procrustes, moments)
LINEAR = Method("linear heads, contrastive", functools.partial(heads, hidden=None), trained=True)
TWO_LAYERS = Method("two-layer heads, mixed", functools.partial(heads, hidden=512), trained=True)

ALL = (
    PAPER,
    TUNED,
    asif_method("ASIF, mean caption", Step("mean")),
    asif_method("ASIF, mean caption, CSLS", Step("mean", False, True)),
    asif_method("ASIF, whitened", Step("mean", True)),
    asif_method("ASIF, whitened, CSLS", Step("mean", True, True)),
    EXTRAS,
    Method("dense relative representations", lambda pairs: rivals.dense_relative(*pairs), means),
    Method(
        "k nearest captions",
        lambda pairs, **setting: rivals.nearest_captions(*pairs, **setting),
        means,
        lambda n: {"k": (1, 5, 10, 20)},
    ),
    PROCRUSTES,
    dataclasses.replace(
        PROCRUSTES, name="orthogonal Procrustes, CSLS", fit=with_csls(PROCRUSTES.fit)
    ),
    RIDGE,
    dataclasses.replace(RIDGE, name="ridge regression, CSLS", fit=with_csls(RIDGE.fit)),
    Method(
        "CSA",
        rivals.csa,
        moments,
        lambda n: {"shrinkage": SHRINKAGES, "dimension": (100, None)},
    ),
    WEIGHTED_CCA,
    CORRECTED_CCA,
    LINEAR,
    TWO_LAYERS,
)
