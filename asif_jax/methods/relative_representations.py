"""ASIF: relative representations over the pairs, as in the paper and in a whitened space.

Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training", NeurIPS
2023, section 3. Whitening and the use of all captions are additions of ours.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.anchors import Anchors, as_anchors, embeddings_of
from asif_jax.core.captions import nearest_pairs_in_metric
from asif_jax.core.cosine import normalize
from asif_jax.core.explanation import Explanation, check_single, explain
from asif_jax.core.nearest import DEFAULT_MEMORY, nearest_in_metric
from asif_jax.core.projection import RelativeRepresentation, project, represent_nearest
from asif_jax.core.scoring import similarity
from asif_jax.methods import rules
from asif_jax.methods.blocks import lengths_in, map_rows
from asif_jax.methods.method import Method, Pairs, given
from asif_jax.methods.statistics import Sums, measure, moments, pair_means
from asif_jax.methods.whitening import (
    Metric,
    centred,
    shrunk_metric,
    solve_rows,
    whitened,
)


class AsifState(NamedTuple):
    """Pairs, and how inputs are compared to them.

    Attributes:
      anchors: the pairs.
      p: [] float32, the exponent.
      metrics: modality -> the whitened space it is compared in; empty without whitening.
      scales: modality -> [n] or [n, captions] float32, one over the length of each anchor in that
        space, zero for a zero vector.
    """

    anchors: Anchors
    p: Array
    metrics: Mapping[str, Metric]
    scales: Mapping[str, Array]


def paper(*, k: int | None = None, p: float | None = None) -> Method:
    """The paper's method, exactly: top-k cosines to the pairs, raised to a power.

    Of a pair with several captions the mean of their embeddings is used.

    Args:
      k: similarities kept; by default the rule `rules.paper_k` of the number of pairs.
      p: exponent; by default the rule `rules.paper_p`.

    Returns:
      The method.

    Example:
      >>> method = paper(k=1, p=8.0)
      >>> state = method.fit({"image": [[1.0, 0.0], [0.0, 1.0]], "text": [[0.1, 1.0], [1.0, 0.0]]})
      >>> left = method.represent(state, jnp.array([[0.9, 0.1]]), "image")
      >>> method.score(state, left, method.represent(state, jnp.eye(2), "text")).tolist()
      [[0.0, 1.0]]
    """

    def fit(pairs: Pairs, sums: Sums | None = None) -> AsifState:
        anchors = as_anchors(pairs)
        single = {m: _mean_caption(array) for m, array in anchors.embeddings.items()}
        exponent = rules.paper_p(jnp.sum(anchors.live)) if p is None else p
        return AsifState(Anchors(single, anchors.live), jnp.float32(exponent), {}, {})

    def represent(state: AsifState, embeddings: ArrayLike, modality: str) -> RelativeRepresentation:
        anchors = embeddings_of(state.anchors, modality)
        kept = _kept(k, anchors.shape[0], rules.paper_k)
        live = state.anchors.live
        return project(embeddings, anchors, k=kept, p=state.p, live=live, normalized=True)

    settings = given(k=k, p=p)
    return Method(fit, represent, _score, _explain, _no_sums, "paper", settings)


def asif(
    *,
    k: int | None = None,
    p: float | None = None,
    shrinkage: float | Mapping[str, float] | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Method:
    """ASIF in a whitened space, with all captions of a pair.

    An input is compared to the pairs by the cosine of (C + s I)^(-1/2) (x - m), with the mean m and
    the covariance C of the pairs' own embeddings. Through the captions of a pair it is the
    quadratic mean of the positive ones.

    Args:
      k: similarities kept; by default 800, or all of fewer pairs.
      p: exponent; by default a rule of the number of pairs.
      shrinkage: how much of the mean variance is added to every variance, one value or modality ->
        value; by default a rule of the number of pairs.
      memory: bytes that a projection may use beside the pairs.

    Returns:
      The method.

    Example:
      >>> pairs = {m: jax.random.normal(jax.random.key(0), [9, 4]) for m in ("image", "text")}
      >>> method = asif(k=5)
      >>> method.represent(method.fit(pairs), pairs["text"], "text").values.shape
      (9, 5)
    """

    def fit(pairs: Pairs, sums: Sums | None = None) -> AsifState:
        anchors = as_anchors(pairs)
        sums = measure(anchors) if sums is None else sums
        exponent = rules.exponent(sums.pairs) if p is None else p
        metrics, scales = {}, {}
        for modality, array in anchors.embeddings.items():
            added = rules.chosen(shrinkage, sums, modality, rules.whitening_shrinkage)
            metrics[modality] = _metric(sums, modality, added)
            scales[modality] = _scales(array, metrics[modality])
        return AsifState(anchors, jnp.float32(exponent), metrics, scales)

    def represent(state: AsifState, embeddings: ArrayLike, modality: str) -> RelativeRepresentation:
        anchors = embeddings_of(state.anchors, modality)
        kept = _kept(k, anchors.shape[0], rules.kept)
        found = _nearest(
            state.metrics[modality],
            jnp.asarray(embeddings),
            anchors,
            state.scales[modality],
            state.anchors.live,
            k=kept,
            memory=memory,
        )
        return represent_nearest(embeddings, *found, size=anchors.shape[0], p=state.p)

    settings = given(k=k, p=p, shrinkage=shrinkage)
    return Method(fit, represent, _score, _explain, measure, "asif", settings)


@functools.partial(jax.jit, static_argnames=("k", "memory"))
def _nearest(
    metric: Metric,
    embeddings: Array,
    anchors: Array,
    scales: Array,
    live: Array,
    *,
    k: int,
    memory: int,
) -> tuple[Array, Array]:
    """The k nearest pairs in the whitened space; the anchors themselves are not whitened."""
    units = normalize(whitened(normalize(embeddings), metric))
    queries = solve_rows(metric.factor, units, transposed=True)
    # Rounded as the products will round them, so that the offset fits.
    queries = queries.astype(anchors.dtype).astype(queries.dtype)
    offsets = jnp.matmul(queries, metric.mean, precision=jax.lax.Precision.HIGHEST)
    options = {"live": live, "memory": memory}
    if anchors.ndim == 2:
        return nearest_in_metric(queries, offsets, anchors, scales, k, **options)
    if anchors.shape[1] == 1:
        single = anchors[:, 0], scales[:, 0]
        return nearest_in_metric(queries, offsets, *single, k, **options)
    return nearest_pairs_in_metric(queries, offsets, anchors, scales, k, **options)


@functools.partial(jax.jit, static_argnames="modality")
def _metric(sums: Sums, modality: str, shrinkage: ArrayLike) -> Metric:
    return shrunk_metric(*moments(sums, modality), shrinkage)


@jax.jit
def _scales(embeddings: Array, metric: Metric) -> Array:
    """[n] or [n, captions]: one over the length of each anchor in the whitened space."""
    inverse = solve_rows(metric.factor, jnp.eye(embeddings.shape[-1])).T

    def lengths(part: Array) -> Array:
        rows = part.reshape(-1, part.shape[-1]).astype(jnp.float32)
        return lengths_in(inverse, centred(rows, metric.mean)).reshape(part.shape[:-1])

    found = map_rows(lengths, embeddings)
    positive = found > 0.0
    return jnp.where(positive, 1.0 / jnp.where(positive, found, 1.0), 0.0)


def _mean_caption(embeddings: Array) -> Array:
    """[n, d] unit vectors: of several captions the mean, normalized."""
    if embeddings.ndim == 2:
        return embeddings
    return normalize(pair_means(embeddings)).astype(embeddings.dtype)


def _score(state: AsifState, left: RelativeRepresentation, right: RelativeRepresentation) -> Array:
    return similarity(left, right)


def _explain(
    state: AsifState, left: RelativeRepresentation, right: RelativeRepresentation
) -> Explanation:
    check_single(left.values[..., 0], right.values[..., 0])
    return explain(left, right)


def _no_sums(pairs: Pairs, like: Sums | None = None) -> None:
    return None


def _kept(k: int | None, pairs: int, rule: Callable[[int], int]) -> int:
    return min(rule(pairs) if k is None else k, pairs)
