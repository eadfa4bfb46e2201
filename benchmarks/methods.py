"""The rows of the tables: the recommended method and its rivals, each choosing its own settings.

A row sees training pairs alone. It holds some of them out to choose its settings, and is then
fitted to all of them. What the library has is taken from there; trained heads are written here.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rival_methods
from real_pairs import Embedded

from asif_jax import methods
from asif_jax.core.anchors import Anchors
from asif_jax.methods import Method
from asif_jax.methods.statistics import Sums

Setting = Mapping[str, Any]
Grid = Mapping[str, Sequence]

_MOST_HELD_OUT = 300


@dataclasses.dataclass(frozen=True)
class Row:
    """A method of the table, and what it may choose.

    Attributes:
      name: what the table says.
      make: from a setting, by keyword, to the method.
      grid: setting -> its values, given the number of pairs that are not held out. The search
        begins with the first of each. "root" is whether images are square rooted.
      corrected: for hubs, by the pairs of the model.
      trained: by gradient descent.
    """

    name: str
    make: Callable[..., Method]
    grid: Callable[[int], Grid] = lambda n: {"root": (True, False)}
    corrected: bool = True
    trained: bool = False

    def method(self, setting: Setting) -> Method:
        """The method with a setting; the same object for the same one, which compiles once."""
        return _method(self, tuple(setting.items()))


@functools.cache
def _method(row: Row, items: tuple) -> Method:
    setting = dict(items)
    root = setting.pop("root", False)
    method = row.make(**setting)
    method = methods.with_square_root(method) if root else method
    return methods.with_csls(method) if row.corrected else method


class Part(NamedTuple):
    """Some of the training pairs held out.

    Attributes:
      rest: all pairs, of which those held out are not live.
      sums: square rooted or not -> the sums over the rest.
      asked: modality -> the pairs held out, first captions.
    """

    rest: Anchors
    sums: Mapping[bool, Sums]
    asked: Mapping[str, jax.Array]


class Training(NamedTuple):
    """Training pairs for all rows.

    Attributes:
      anchors: the pairs.
      parts: of the search for settings.
      seconds: that measuring the sums of all parts took, which every row would have to.
    """

    anchors: Anchors
    parts: Sequence[Part]
    seconds: float


class Fitted(NamedTuple):
    """A method fitted to training pairs.

    Attributes:
      method: with the setting that was chosen.
      state: of the method.
      setting: what was chosen.
      choosing: seconds that took.
      fitting: seconds of the fit to all training pairs with that setting.
    """

    method: Method
    state: Any
    setting: Setting
    choosing: float
    fitting: float


def training(pairs: Embedded) -> Training:
    """Holds pairs out, several times where they are few."""
    n = len(pairs.images)
    held_out = min(_MOST_HELD_OUT, n // 5)
    anchors = anchors_of(pairs)
    parts = []
    start = time.perf_counter()
    for seed in range(3 if n <= 500 else 1):
        rows = np.random.default_rng(seed).permutation(n)[:held_out]
        rest = anchors._replace(live=anchors.live.at[rows].set(False))
        plain = methods.cca()
        sums = {False: plain.measure(rest), True: methods.with_square_root(plain).measure(rest)}
        asked = {"image": pairs.images[rows], "text": pairs.captions[rows, 0]}
        parts.append(Part(rest, jax.block_until_ready(sums), asked))
    # Half of them: a row needs the sums of either kind about as often.
    return Training(anchors, parts, (time.perf_counter() - start) / 2)


def anchors_of(pairs: Embedded) -> Anchors:
    embeddings = {"image": jnp.asarray(pairs.images), "text": jnp.asarray(pairs.captions)}
    return Anchors(embeddings, jnp.ones(len(pairs.images), bool))


def run(row: Row, pairs: Training) -> Fitted:
    start = time.perf_counter()
    setting = choose(row, pairs.parts)
    chosen = time.perf_counter()
    method = row.method(setting)
    state = jax.block_until_ready(method.fit(pairs.anchors))
    choosing = chosen - start + (pairs.seconds if _several(row, pairs.parts) else 0.0)
    return Fitted(method, state, setting, choosing, time.perf_counter() - chosen)


def choose(row: Row, parts: Sequence[Part]) -> Setting:
    """The best setting for the pairs held out, searched along one axis of the grid at a time."""
    grid = _grid(row, parts)
    best = {name: values[0] for name, values in grid.items()}
    if not _several(row, parts):
        return best
    worth = functools.cache(lambda items: _worth(row, dict(items), parts))
    for name, values in grid.items():
        tried = [{**best, name: value} for value in values]
        best = max(tried, key=lambda setting: worth(tuple(setting.items())))
    return best


def _grid(row: Row, parts: Sequence[Part]) -> Grid:
    return row.grid(int(parts[0].rest.live.sum()))


def _several(row: Row, parts: Sequence[Part]) -> bool:
    return any(len(values) > 1 for values in _grid(row, parts).values())


def _worth(row: Row, setting: Setting, parts: Sequence[Part]) -> float:
    """Mean reciprocal rank of the own other side, both ways, one query at a time."""
    method = row.method(setting)
    found = []
    for part in parts:
        state = method.fit(part.rest, part.sums[setting.get("root", False)])
        sides = (method.represent(state, array, m) for m, array in part.asked.items())
        scores = np.asarray(method.score(state, *sides))
        for each in (scores, scores.T):
            own = np.diag(each)[:, None]
            better, equal = (each > own).sum(axis=1), (each == own).sum(axis=1)
            found.append(np.mean(1.0 / (better + (1 + equal) / 2)))
    return float(np.mean(found))


def _sides(image: float, text: float) -> dict[str, float]:
    return {"image": image, "text": text}


def _cca_grid(n: int) -> Grid:
    return {
        "root": (True, False),
        "image": (1.0, 0.3, 3.0, 10.0, 30.0),
        "text": (0.3, 0.1, 1.0, 3.0, 10.0),
    }


def _tuned_grid(n: int) -> Grid:
    rule = min(n // 5, 800)
    return {
        "root": (True, False),
        "k": (rule, *(k for k in (10, 50, 200, 800) if k < n and k != rule)),
        "p": (4.0, 2.0, 3.0, 6.0, 8.0),
    }


def _whitened_grid(n: int) -> Grid:
    return {
        "root": (True, False),
        "image": (1.0, 0.3, 3.0, 10.0),
        "text": (1.0, 0.3, 3.0, 10.0),
        "k": (min(n, 800), n // 3, n),
        "p": (1.0, 0.7, 1.5, 2.0),
    }


def _heads(name: str, hidden: int | None) -> Row:
    make = functools.partial(rival_methods.heads, hidden=hidden)
    # Pairs held out chose the square root each time they were asked, which takes long to train.
    return Row(name, make, lambda n: {"root": (True,)}, corrected=False, trained=True)


PUBLISHED = Row(
    "ASIF as in the paper, uncorrected",
    lambda: methods.paper(k=800, p=8.0),
    lambda n: {},
    corrected=False,
)
PAPER = dataclasses.replace(PUBLISHED, name="ASIF as in the paper", corrected=True)
TUNED = Row("ASIF, tuned k and p", methods.paper, _tuned_grid)
WHITENED = Row(
    "ASIF, whitened, tuned",
    lambda *, image, text, **rest: methods.asif(shrinkage=_sides(image, text), **rest),
    _whitened_grid,
)
CCA = Row(
    "canonical correlations (CCA)",
    lambda *, image, text: methods.cca(shrinkage=_sides(image, text)),
    _cca_grid,
)
CSA = Row(
    "canonical similarity (CSA)",
    lambda *, image, text, **rest: methods.csa(shrinkage=_sides(image, text), **rest),
    lambda n: {**_cca_grid(n), "dimension": (None, 50, 100, 200)},
)
PROCRUSTES = Row("orthogonal Procrustes", methods.procrustes)
RIDGE = Row(
    "ridge regression",
    methods.ridge,
    lambda n: {"root": (True, False), "penalty": (1.0, 0.1, 0.3, 3.0, 10.0, 30.0)},
)
LINEAR = _heads("linear heads", None)
TWO_LAYERS = _heads("two-layer heads", 512)
# By rule: it looks at no pair held out. It corrects itself.
OURS = Row("two cosines, by rule (ours)", methods.two_cosines, lambda n: {}, corrected=False)

ALL = (PUBLISHED, PAPER, TUNED, WHITENED, CCA, CSA, PROCRUSTES, RIDGE, LINEAR, TWO_LAYERS, OURS)
