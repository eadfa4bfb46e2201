"""Correction of hubs: items that come up for every query.

Conneau et al., "Word Translation Without Parallel Data", ICLR 2018, section 2.3. A score is set
beside what its two sides get on average from their nearest items: 2 s(x, y) - r(x) - r(y). Here r
is measured either on the pairs of the model (`with_csls`: a query's score then depends on no other
query) or on the batch at hand (`csls`: better where a whole gallery is matched at once).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.anchors import Anchors, as_anchors
from asif_jax.core.explanation import Explanation, by_pair, by_size, check_single
from asif_jax.core.projection import RelativeRepresentation, without
from asif_jax.methods.method import Method, Pairs
from asif_jax.methods.statistics import Sums, pair_means


@functools.partial(jax.jit, static_argnames="k")
def csls(scores: ArrayLike, *, bank: ArrayLike | None = None, k: int = 10) -> Array:
    """Cross-domain similarity local scaling: a score minus the usual scores of its two sides.

    Conneau et al., "Word Translation Without Parallel Data", ICLR 2018, section 2.3:
    2 s(x, y) - r(x) - r(y), where r is the mean score to the k nearest of the other side. For ASIF
    it is an addition of ours.

    Args:
      scores: [b, m] real, of queries to gallery items.
      bank: [q, m] real, scores of other queries, such as the anchors, to the same items; the
        usual score of an item is measured on them; by default on the queries themselves, which then
        see each other.
      k: how many neighbours; static. All, where there are fewer.

    Returns:
      [b, m] float32, larger is better.

    Raises:
      ValueError: scores that are not [b, m], or a bank over other items.

    Example:
      >>> csls([[0.9, 0.8], [0.9, 0.1]], k=2).argmax(axis=-1).tolist()
      [1, 0]
    """
    scores = jnp.asarray(scores)
    others = scores if bank is None else jnp.asarray(bank)
    if scores.ndim != 2 or others.ndim != 2 or others.shape[1] != scores.shape[1] or k < 1:
        raise ValueError(
            "csls takes scores [b, m], a bank [q, m] and k of at least 1: "
            f"got {scores.shape}, {others.shape}, {k}"
        )
    return 2.0 * scores - _mean_of_largest(scores, k)[:, None] - _mean_of_largest(others.T, k)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Corrected:
    """Representations of a batch, and how much of a hub each row is.

    Attributes:
      inner: representations of the method that is corrected.
      hubs: modality -> [...] float32, the mean score to the nearest pairs of the bank in it; empty
        where a row is not corrected.
      modality: whose these are; static.
    """

    inner: Any
    hubs: Mapping[str, Array]
    modality: str = dataclasses.field(metadata={"static": True})

    def __getitem__(self, item) -> "Corrected":
        """Selects rows."""
        hubs = {modality: array[item] for modality, array in self.hubs.items()}
        return Corrected(self.inner[item], hubs, self.modality)


def uncorrected(representation: Any) -> Any:
    """Representations whose own part in the correction is left out, such as those of given labels.

    How often a label comes up among the pairs of a model says nothing of other images, so labels
    are not corrected when images are named by them.

    Args:
      representation: of any method.

    Returns:
      The same; only those of `with_csls` differ.
    """
    if isinstance(representation, Corrected):
        return Corrected(representation.inner, {}, representation.modality)
    return representation


class BankState(NamedTuple):
    """The state of a method, and the pairs by which hubs are measured.

    Attributes:
      anchors: the pairs.
      state: of the method that is corrected.
      bank: modality -> representations of some of the pairs.
      filled: [bank] bool, false for surplus rows of the bank.
    """

    anchors: Anchors
    state: Any
    bank: Mapping[str, Any]
    filled: Array


def with_csls(method: Method, *, bank: int = 1000, neighbours: int = 10) -> Method:
    """A method whose scores are corrected for hubs, by the pairs of the model itself.

    r(x) is the mean score of x to its nearest among the other sides of some pairs, so every query
    is scored by itself. Since r is a mean of scores, it is a sum over named pairs as they are.

    Args:
      method: whose scores are corrected.
      bank: how many pairs hubs are measured on, at even distances; all of fewer.
      neighbours: how many of them are the nearest.

    Returns:
      The method.

    Example:
      >>> from asif_jax.methods.canonical_correlations import cca
      >>> with_csls(cca(), bank=100).settings["bank"]
      100
    """

    def fit(pairs: Pairs, sums: Sums | None = None) -> BankState:
        anchors = as_anchors(pairs)
        state = method.fit(anchors, sums)
        slots, filled = _spread(anchors.live, min(bank, anchors.capacity))
        kept = {
            m: _without_itself(method.represent(state, _mean_rows(array, slots), m), slots)
            for m, array in anchors.embeddings.items()
        }
        return BankState(anchors, state, kept, filled)

    def represent(state: BankState, embeddings: ArrayLike, modality: str) -> Corrected:
        embeddings = jnp.asarray(embeddings)
        batch = embeddings.shape[:-1]
        rows = embeddings.reshape(-1, embeddings.shape[-1])
        inner = method.represent(state.state, rows, modality)

        def hub(bank: Any) -> Array:
            scores = method.score(state.state, inner, bank)
            return _nearest_mean(scores, state.filled, neighbours)[0].reshape(batch)

        hubs = {other: hub(kept) for other, kept in state.bank.items()}
        shaped = jax.tree.map(lambda array: array.reshape(*batch, *array.shape[1:]), inner)
        return Corrected(shaped, hubs, modality)

    def score(state: BankState, left: Corrected, right: Corrected) -> Array:
        scores = 2.0 * method.score(state.state, left.inner, right.inner)
        if left.hubs:
            scores -= left.hubs[right.modality][:, None]
        return scores - right.hubs[left.modality][None, :] if right.hubs else scores

    def explain(state: BankState, left: Corrected, right: Corrected) -> Explanation:
        check_single(*left.hubs.values(), *right.hubs.values())
        size = state.anchors.capacity

        def parts(one: Any, other: Any) -> Array:
            return by_pair(method.explain(state.state, one, other), size)

        def hub_parts(one: Any, modality: str) -> Array:
            kept = state.bank[modality]
            scores = method.score(state.state, jax.tree.map(lambda a: a[None], one), kept)
            _, shares = _nearest_mean(scores, state.filled, neighbours)
            weights, rows = jax.lax.top_k(shares[0], min(neighbours, shares.shape[1]))
            each = jax.lax.map(lambda row: parts(one, jax.tree.map(lambda a: a[row], kept)), rows)
            # Surplus rows of the bank may hold NaN.
            return jnp.sum(jnp.where(weights[:, None] > 0.0, weights[:, None] * each, 0.0), axis=0)

        total = 2.0 * parts(left.inner, right.inner)
        for one, other in ((left, right), (right, left)):
            if one.hubs:
                total -= hub_parts(one.inner, other.modality)
        return by_size(total)

    settings = {
        "method": [method.name, dict(method.settings)],
        "bank": bank,
        "neighbours": neighbours,
    }
    return Method(fit, represent, score, explain, method.measure, "with_csls", settings)


@functools.partial(jax.jit, static_argnames="count")
def _spread(live: Array, count: int) -> tuple[Array, Array]:
    """Slots of live pairs at even distances, [count], and which of them are not surplus.

    The slots i of the smallest fractions of i times the golden ratio are at even distances, and one
    pair more or less changes at most one of them.
    """
    fractions = jnp.arange(live.shape[0], dtype=jnp.uint32) * jnp.uint32(2654435769)
    # As signed integers in the opposite order; a dead slot comes after all live ones.
    order = jax.lax.bitcast_convert_type(~fractions ^ jnp.uint32(1 << 31), jnp.int32)
    slots = jax.lax.top_k(jnp.where(live, order, jnp.iinfo(jnp.int32).min), count)[1]
    return slots.astype(jnp.int32), live[slots]


def _without_itself(representations: Any, slots: Array) -> Any:
    """Members of the bank as if their own pair were not among the pairs, as no query's is."""

    def leave_out(part: Any) -> Any:
        return without(part, slots) if isinstance(part, RelativeRepresentation) else part

    return jax.tree.map(
        leave_out, representations, is_leaf=lambda part: isinstance(part, RelativeRepresentation)
    )


def _mean_rows(embeddings: Array, slots: Array) -> Array:
    rows = embeddings[slots]
    return rows if rows.ndim == 2 else pair_means(rows)


@functools.partial(jax.jit, static_argnames="neighbours")
def _nearest_mean(scores: Array, filled: Array, neighbours: int) -> tuple[Array, Array]:
    """[b] mean of the largest scores in a bank, and [b, bank] the share of each in it."""
    known = jnp.where(filled, scores, -jnp.inf)
    values, rows = jax.lax.top_k(known, min(neighbours, scores.shape[1]))
    counted = jnp.isfinite(values)
    count = jnp.maximum(jnp.sum(counted, axis=-1, keepdims=True), 1)
    share = jnp.where(counted, 1.0 / count, 0.0)
    means = jnp.sum(jnp.where(counted, values, 0.0) * share, axis=-1)
    batch = jnp.arange(scores.shape[0])[:, None]
    return means, jnp.zeros_like(scores).at[batch, rows].add(share)


def _mean_of_largest(scores: Array, k: int) -> Array:
    """[b] from [b, m]."""
    return jnp.mean(jax.lax.top_k(scores, min(k, scores.shape[-1]))[0], axis=-1)
