"""What the linear methods share: codes in canonical coordinates, and the pairs behind them.

With W_x and W_y the maps that whiten two modalities (or leave them as they are), and U rho V' the
singular value decomposition of W_x C_xy W_y', the canonical coordinates of x and y are
U' W_x (x - m_x) and V' W_y (y - m_y). A linear method weighs them, brings them to unit length and
compares them by their inner product.

Every score is a sum over the pairs (a_i, b_i). C_xy = (1/n) sum_i a_i b_i' over centred pairs, so
U' W_x C_xy W_y' V = diag(rho), and codes u and v have the inner product

    <u, v> = (1/n) sum_i <a_i, W_x' U rho^-s u> <b_i, W_y' V rho^-(1-s) v>.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.anchors import Anchors, as_anchors, embeddings_of
from asif_jax.core.cosine import normalize
from asif_jax.core.explanation import Explanation, by_size, check_single
from asif_jax.methods.blocks import map_rows
from asif_jax.methods.decomposition import svd
from asif_jax.methods.method import Method, Pairs
from asif_jax.methods.statistics import Sums, cross_covariance, measure, moments, pair_means
from asif_jax.methods.whitening import Metric, centred, shrunk_metric, solve_rows

# Correlations below this share of the largest, or below the second number, are rounding and count
# as none.
_SMALLEST = 1e-3
_ROUNDING = 1e-6

# (sums, modality) -> the shrinkage of the space that a modality is whitened in.
Shrinkage = Callable[[Sums, str], Any]


class Side(NamedTuple):
    """The canonical coordinates of one modality beside another: (x - mean) @ basis.

    Attributes:
      mean: [d] float32.
      basis: [d, r] float32.
      correlations: [r] float32 singular values, descending; zero where there is none.
    """

    mean: Array
    basis: Array
    correlations: Array


class LinearState(NamedTuple):
    """Pairs, and the coordinates in which inputs are compared.

    Attributes:
      anchors: the pairs, which explanations name.
      pair_means: modality -> [d] float32, the mean over pairs of their mean embedding.
      sides: modality -> other modality -> its coordinates for comparison with the other.
    """

    anchors: Anchors
    pair_means: Mapping[str, Array]
    sides: Mapping[str, Mapping[str, Side]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Codes:
    """Unit codes of a batch of one modality, one for comparison with each other modality.

    Attributes:
      codes: other modality -> [..., r] float32.
      modality: whose these are; static.
    """

    codes: Mapping[str, Array]
    modality: str = dataclasses.field(metadata={"static": True})

    def __getitem__(self, item) -> "Codes":
        """Selects rows."""
        return Codes({other: array[item] for other, array in self.codes.items()}, self.modality)


class Weights(NamedTuple):
    """How a linear method weighs canonical coordinates: by powers of the correlations.

    Attributes:
      first: the power for the first modality by name, before its codes are brought to unit length.
      second: the power for the second.
      after: the power for both after that.
      variates: how many coordinates are used, those of the largest correlations; None for all.
      whole: the second modality is brought to the unit length of the whole centred vector, with
        what no pair couples. It must not be whitened.
      share: the power s of the module's equation, what the first modality takes of the division by
        the correlations.
    """

    first: float = 0.0
    second: float = 0.0
    after: float = 0.0
    variates: int | None = None
    whole: bool = False
    share: float = 0.5


def linear_method(
    name: str,
    settings: Mapping[str, Any],
    *,
    shrinkage: Shrinkage,
    weights: Weights,
    whiten: tuple[bool, bool] = (True, True),
) -> Method:
    """A method that compares unit codes in canonical coordinates.

    Args:
      name: of the method.
      settings: that it is stored with.
      shrinkage: of the spaces that modalities are whitened in.
      weights: of the coordinates.
      whiten: whether the first modality by name is whitened, and the second; both are centred.

    Returns:
      The method.
    """

    def fit(pairs: Pairs, sums: Sums | None = None) -> LinearState:
        anchors = as_anchors(pairs)
        sums = measure(anchors) if sums is None else sums
        shrinkages = {m: jnp.float32(shrinkage(sums, m)) for m in anchors.embeddings}
        return LinearState(anchors, *_fit(sums, shrinkages, whiten=whiten))

    def represent(state: LinearState, embeddings: ArrayLike, modality: str) -> Codes:
        embeddings_of(state.anchors, modality)
        return _represent(
            state.sides[modality], jnp.asarray(embeddings), modality=modality, weights=weights
        )

    def explain(state: LinearState, left: Codes, right: Codes) -> Explanation:
        return by_size(_contributions(state, left, right, share=weights.share))

    return Method(fit, represent, _score, explain, measure, name, settings)


@functools.partial(jax.jit, static_argnames="whiten")
def _fit(sums: Sums, shrinkages: Mapping[str, Array], *, whiten: tuple[bool, bool]):
    """The means over pairs, and the sides of every two modalities."""
    names = sorted(sums.means)
    means = {m: sums.means[m] / jnp.maximum(sums.pairs, 1.0) for m in names}
    spaces = {m: shrunk_metric(*moments(sums, m), shrinkages[m]) for m in names}
    flat = {m: space._replace(factor=jnp.eye(len(space.mean))) for m, space in spaces.items()}
    sides: dict[str, dict[str, Side]] = {m: {} for m in names}
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            first = (spaces if whiten[0] else flat)[one]
            second = (spaces if whiten[1] else flat)[other]
            both = _sides(cross_covariance(sums, one, other), first, second)
            sides[one][other], sides[other][one] = both
    return means, sides


def _sides(cross: Array, first: Metric, second: Metric) -> tuple[Side, Side]:
    """The canonical coordinates of two modalities beside each other."""
    across = solve_rows(second.factor, solve_rows(first.factor, cross.T).T)
    left, found, right = svd(across)
    found = jnp.where(found > jnp.maximum(_SMALLEST * found[0], _ROUNDING), found, 0.0)

    def side(metric: Metric, vectors: Array) -> Side:
        basis = solve_rows(metric.factor, vectors.T, transposed=True).T
        return Side(metric.mean, basis, found)

    return side(first, left), side(second, right)


@functools.partial(jax.jit, static_argnames=("modality", "weights"))
def _represent(
    sides: Mapping[str, Side], embeddings: Array, *, modality: str, weights: Weights
) -> Codes:
    units = normalize(embeddings)

    def code(other: str, side: Side) -> Array:
        before = weights.first if modality < other else weights.second
        vectors, values = centred(units, side.mean), side.correlations
        # What no pair couples takes part in no score.
        used = jnp.where(jnp.arange(values.shape[0]) < limit(values), values, 0.0)
        weighed = _matmul(vectors, side.basis) * _power(used, before)
        if weights.whole and modality > other:
            return weighed * _inverse_length(vectors)
        return normalize(weighed) * _power(used, weights.after)

    def limit(values: Array) -> int:
        return values.shape[0] if weights.variates is None else weights.variates

    return Codes({other: code(other, side) for other, side in sides.items()}, modality)


def _inverse_length(vectors: Array) -> Array:
    """[..., 1] one over the length of each vector [..., d]; zero for a zero vector."""
    squares = jnp.sum(vectors**2, axis=-1, keepdims=True)
    # The negation lets NaN through.
    some = ~(squares <= 0.0)
    return jnp.where(some, jax.lax.rsqrt(jnp.where(some, squares, 1.0)), 0.0)


def _score(state: LinearState, left: Codes, right: Codes) -> Array:
    first, second = _comparable(left, right)
    return _matmul(first, second.T)


def _comparable(left: Codes, right: Codes) -> tuple[Array, Array]:
    """The codes by which two batches are compared, also where both are of one modality."""
    if left.modality != right.modality:
        return left.codes[right.modality], right.codes[left.modality]
    other = min(left.codes)
    return left.codes[other], right.codes[other]


@functools.partial(jax.jit, static_argnames="share")
def _contributions(state: LinearState, left: Codes, right: Codes, *, share: float) -> Array:
    """[n] what each pair adds to the score of one code on each side."""
    one, other = left.modality, right.modality
    other = min(left.codes) if one == other else other
    first, second = _comparable(left, right)
    check_single(first[..., 0], second[..., 0])
    codes = {one: first, other: second}

    def reading(modality: str, partner: str) -> Array:
        side = state.sides[modality][partner]
        power = -share if modality < partner else share - 1.0
        vector = _matmul(side.basis, codes[modality] * _power(side.correlations, power))
        pairs, mean = embeddings_of(state.anchors, modality), state.pair_means[modality]
        return map_rows(lambda part: _matmul(pair_means(part) - mean, vector), pairs)

    products = reading(one, other) * reading(other, one)
    live = state.anchors.live
    return jnp.where(live, products, 0.0) / jnp.maximum(jnp.sum(live), 1)


def _power(values: Array, power: float) -> Array:
    """Powers of what is positive, zero elsewhere."""
    positive = values > 0.0
    return jnp.where(positive, jnp.where(positive, values, 1.0) ** power, 0.0)


def _matmul(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
