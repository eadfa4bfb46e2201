"""The choice of k and p: by a rule, or by retrieval among pairs held out. No labels are needed.

The anchors are searched once for the largest k. Sorted, what is found serves every smaller k, and
one compiled program serves all of the grid.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.captions import nearest_pairs
from asif_jax.core.cosine import normalize
from asif_jax.core.nearest import nearest_anchors
from asif_jax.core.projection import power
from asif_jax.methods import rules

_KS = (5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200)
_PS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_MOST_HELD_OUT = 300
# Their dense vectors, a column each, then stay in cache at a few thousand anchors.
_QUERIES_PER_TABLE = 64

Arrays = Mapping[str, Array]
Transform = Callable[[Arrays, Arrays, Array], tuple[Arrays, Arrays]]


class Surface(NamedTuple):
    """Recall among held-out pairs for every k and p.

    Attributes:
      ks: [K] int, ascending.
      ps: [P] float.
      recall: [splits, K, P, 2] float, recall@`at` of each split: the first modality searching the
        second, and the reverse.
      at: how many places count.
      held_out: the pairs searched among in each split.
    """

    ks: np.ndarray
    ps: np.ndarray
    recall: np.ndarray
    at: int
    held_out: int


class Choice(NamedTuple):
    """The best k and p of a surface, and how sure that is.

    Attributes:
      k: similarities to keep.
      p: exponent.
      recall: mean recall over splits and both directions.
      deviation: its standard deviation over splits; 0 for a single one.
      each: the k and p that each split alone would choose.
    """

    k: int
    p: float
    recall: float
    deviation: float
    each: tuple[tuple[int, float], ...]


def tune(
    embeddings: Mapping[str, ArrayLike],
    *,
    queries: Mapping[str, ArrayLike] | None = None,
    ks: Sequence[int] | None = None,
    ps: Sequence[float] = _PS,
    splits: int = 5,
    held_out: int | None = None,
    at: int = 10,
    seed: int = 0,
    transform: Transform | None = None,
    correct: Callable[[Array], Array] | None = None,
) -> Surface:
    """Measures every k and p of a grid by retrieval both ways among pairs held out at random.

    In each split the held-out pairs leave the anchors, and each side searches the other among them.

    Args:
      embeddings: two modality names -> [n, d] real and finite; row i of both is pair i. Or
        [n, c, d], if a pair has several, for `captions.nearest_pairs`.
      queries: modality names -> [n, d], what a pair is searched by when it is held out; by default
        its embeddings.
      ks: values of k, at most n - held_out; by default 5 to 1,200, as far as the anchors go.
      ps: values of p.
      splits: how many times pairs are held out.
      held_out: how many; by default a fifth of the pairs, at most 300.
      at: how many places count.
      seed: of the splits.
      transform: applied to anchors and queries in each split, with [n] bool of the anchors that are
        live, before they are compared: for example whitening fitted to these anchors.
      correct: applied to the [held_out, held_out] scores, for example `hubness.csls`; traced.

    Returns:
      The surface. `best` chooses from it.

    Raises:
      ValueError: not two modalities of as many pairs, or k, p, splits or held_out out of range.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), [40, 8])
      >>> best(tune({"image": x, "text": x}, ps=[1.0, 2.0], held_out=15)).recall > 0.9
      True
    """
    anchors = {m: jnp.asarray(array) for m, array in embeddings.items()}
    asked = anchors if queries is None else {m: jnp.asarray(queries[m]) for m in anchors}
    n = _check_pairs(anchors, asked)
    held_out = min(_MOST_HELD_OUT, max(n // 5, 1)) if held_out is None else held_out
    if not 1 <= held_out < n or splits < 1:
        raise ValueError(
            f"tuning holds out at least one pair and keeps one: got {held_out} of {n} pairs, "
            f"{splits} splits"
        )
    ks = default_ks(n - held_out) if ks is None else sorted({int(k) for k in ks})
    ps = [float(p) for p in ps]
    if not ks or not ps or ks[0] < 1 or ks[-1] > n - held_out or not min(ps) > 0:
        raise ValueError(
            f"k must lie between 1 and the {n - held_out} pairs not held out and p above 0: "
            f"got k {ks}, p {ps}"
        )
    grid = jnp.asarray(ks, jnp.int32), jnp.asarray(ps, jnp.float32)
    recall = []
    for key in jax.random.split(jax.random.key(seed), splits):
        rows = jax.random.permutation(key, n)[:held_out]
        live = jnp.ones(n, bool).at[rows].set(False)
        sides = (anchors, asked) if transform is None else transform(anchors, asked, live)
        measured = _recall_surface(
            *sides, rows, live, *grid, largest=ks[-1], at=at, correct=correct
        )
        recall.append(np.asarray(measured))
    return Surface(np.asarray(ks), np.asarray(ps), np.stack(recall), at, held_out)


def best(surface: Surface) -> Choice:
    """The k and p of the highest mean recall, the smaller of equals.

    Args:
      surface: from `tune`.

    Returns:
      The choice.

    Example:
      >>> recall = np.array([[[[0.5, 0.7], [0.3, 0.3]]]])
      >>> best(Surface(np.array([5]), np.array([1.0, 2.0]), recall, 10, 50))[:3]
      (5, 1.0, 0.6)
    """
    recall = surface.recall.mean(axis=-1)

    def highest(mean: np.ndarray) -> tuple[int, int]:
        row, column = np.unravel_index(np.argmax(mean), mean.shape)
        return int(row), int(column)

    def named(cell: tuple[int, int]) -> tuple[int, float]:
        return int(surface.ks[cell[0]]), float(surface.ps[cell[1]])

    cell = highest(recall.mean(axis=0))
    of_splits = recall[:, *cell]
    deviation = float(of_splits.std(ddof=1)) if len(of_splits) > 1 else 0.0
    each = tuple(named(highest(split)) for split in recall)
    return Choice(*named(cell), float(of_splits.mean()), deviation, each)


def default_ks(anchors: int) -> list[int]:
    """The values of k that `tune` tries: from 5 to 1,200 or all anchors, ever further apart.

    Args:
      anchors: how many there are, at least 1.

    Returns:
      The values, ascending.

    Example:
      >>> default_ks(80)
      [5, 10, 20, 35, 50, 75, 80]
    """
    return [k for k in _KS if k < anchors] + ([anchors] if anchors <= _KS[-1] else [])


def rule_of_thumb(pairs: int) -> tuple[int, float]:
    """A k and p of the paper's method for any number of pairs, without looking at them.

    The paper's k = 800 and p = 8 were chosen for 1.6 million pairs. With few pairs a fifth of them
    and a gentler p = 4 retrieve better.

    Args:
      pairs: the number of live pairs n, at least 1.

    Returns:
      k = min(800, ceil(n / 5)), and p = 4 up to 4,000 pairs, from where it rises to the paper's 8
      at 1.6 million.

    Raises:
      ValueError: no pairs.

    Example:
      >>> rule_of_thumb(344), rule_of_thumb(1_600_000)
      ((69, 4.0), (800, 8.0))
    """
    if pairs < 1:
        raise ValueError(f"k and p need at least one pair: got {pairs}")
    return rules.paper_k(pairs), round(float(rules.paper_p(pairs)), 4)


def _check_pairs(anchors: Arrays, queries: Arrays) -> int:
    shapes = {m: (anchors[m].shape, queries[m].shape) for m in anchors}
    counts = {shape[0] for both in shapes.values() for shape in both}
    fits = all(len(a) in (2, 3) and len(q) == 2 and a[-1] == q[-1] for a, q in shapes.values())
    if len(shapes) != 2 or len(counts) != 1 or not fits:
        raise ValueError(
            "tuning takes two modalities, [n, d] or [n, c, d], and a query [n, d] for every pair: "
            f"got {shapes}"
        )
    for array in (*anchors.values(), *queries.values()):
        if not bool(jnp.isfinite(array).all()):
            raise ValueError(f"embeddings {array.shape} hold NaN or infinity")
    return counts.pop()


@functools.partial(jax.jit, static_argnames=("largest", "at", "correct"))
def _recall_surface(
    anchors: Arrays,
    queries: Arrays,
    held_out: Array,
    live: Array,
    ks: Array,
    ps: Array,
    *,
    largest: int,
    at: int,
    correct: Callable[[Array], Array] | None,
) -> Array:
    """[K, P, 2] recall of one split."""
    n = next(iter(anchors.values())).shape[0]
    first, second = (
        _sorted_nearest(queries[m][held_out], anchors[m], live, largest) for m in anchors
    )

    def measure(k: Array, p: Array) -> Array:
        scores = _scores(first, second, k, p, n)
        scores = scores if correct is None else correct(scores)
        return jnp.stack([_own_recall(scores, at), _own_recall(scores.T, at)])

    # One after another: a grid of score matrices in one vmap leaves the cache and takes longer.
    return jax.lax.map(lambda k: jax.lax.map(lambda p: measure(k, p), ps), ks)


def _sorted_nearest(
    queries: Array, anchors: Array, live: Array, largest: int
) -> tuple[Array, Array]:
    """[h, largest] similarities, descending, and their anchors."""
    search = nearest_anchors if anchors.ndim == 2 else nearest_pairs
    values, indices = search(queries, anchors, largest, live=live)
    order = jnp.argsort(-values, axis=-1, stable=True)
    return jnp.take_along_axis(values, order, axis=-1), jnp.take_along_axis(indices, order, axis=-1)


def _scores(
    first: tuple[Array, Array], second: tuple[Array, Array], k: Array, p: Array, n: int
) -> Array:
    """[h, h] cosines of the relative representations that the first k slots make."""
    kept = jnp.arange(first[0].shape[1]) < k
    left, right = (normalize(power(jnp.where(kept, v, 0.0), p)) for v, _ in (first, second))
    h = left.shape[0]
    tables, surplus = -(-h // _QUERIES_PER_TABLE), -h % _QUERIES_PER_TABLE
    values, indices = (
        jnp.pad(array, ((0, surplus), (0, 0))).reshape(tables, _QUERIES_PER_TABLE, -1)
        for array in (left, first[1])
    )
    slot_values, slot_indices = right.T, second[1].T

    def score(part: tuple[Array, Array]) -> Array:
        columns = jnp.arange(_QUERIES_PER_TABLE)[:, None]
        table = jnp.zeros([n, _QUERIES_PER_TABLE]).at[part[1], columns].add(part[0])

        def add(slot: Array, scores: Array) -> Array:
            return scores + slot_values[slot][:, None] * table[slot_indices[slot]]

        # Slots from k on are zero, and need not be looked at.
        return jax.lax.fori_loop(0, k, add, jnp.zeros([h, _QUERIES_PER_TABLE])).T

    return jax.lax.map(score, (values, indices)).reshape(-1, h)[:h]


def _own_recall(scores: Array, at: int) -> Array:
    """Share of rows whose own column is among the first `at`, equals by the lower index."""
    own, index = jnp.diagonal(scores)[:, None], jnp.arange(scores.shape[0])
    before = (scores > own) | ((scores == own) & (index < index[:, None]))
    return jnp.mean(jnp.sum(before, axis=-1) < at)
