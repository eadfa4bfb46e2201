"""Why a score is what it is: the pairs that both sides resemble."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from asif_jax.core.projection import RelativeRepresentation, check_same_anchors


class Explanation(NamedTuple):
    """The pairs behind a score, largest contribution first.

    Attributes:
      indices: [..., k] int32, anchor pairs.
      contributions: [..., k] float32; their sum is the score. Pairs that only one side resembles
        contribute 0 and come last.
    """

    indices: Array
    contributions: Array


@jax.jit
def explain(first: RelativeRepresentation, second: RelativeRepresentation) -> Explanation:
    """Decomposes the similarity of aligned representations over the anchor pairs.

    A score is the sum over anchors of first_i * second_i (ASIF, section 3, "interpretability"), so
    every term belongs to one image-text pair of the training set.

    Args:
      first: [..., k] representations, for example of images.
      second: [..., l] representations over the same anchors, row by row the counterpart of `first`.

    Returns:
      The explanation of each row's score, [..., k].

    Raises:
      ValueError: shapes that do not align, or different numbers of anchors.

    Example:
      >>> image = RelativeRepresentation(jnp.array([0.8, 0.6]), jnp.array([3, 5]), 9)
      >>> text = RelativeRepresentation(jnp.array([0.6, 0.8]), jnp.array([5, 7]), 9)
      >>> explain(image, text).indices.tolist()
      [5, 3]
    """
    check_same_anchors(first, second)
    if first.values.shape[:-1] != second.values.shape[:-1]:
        raise ValueError(f"rows must align: got {first.values.shape} and {second.values.shape}")
    explain_row = _explain_row
    for _ in range(first.values.ndim - 1):
        explain_row = jax.vmap(explain_row)
    return explain_row(first.values, first.indices, second.values, second.indices)


def _explain_row(values: Array, indices: Array, others: Array, other_indices: Array) -> Explanation:
    order = jnp.argsort(other_indices)
    sorted_indices = other_indices[order]
    position = jnp.searchsorted(sorted_indices, indices)
    position = jnp.minimum(position, order.shape[0] - 1)
    shared = sorted_indices[position] == indices
    contributions = jnp.where(shared, values * others[order[position]], 0.0)
    order = jnp.argsort(-jnp.abs(contributions), stable=True)
    return Explanation(indices[order], contributions[order])


def by_size(contributions: Array) -> Explanation:
    """An explanation that names all pairs, from what each contributes.

    Args:
      contributions: [..., n] float32, in the order of the pairs.

    Returns:
      The explanation, [..., n], the largest in magnitude first, of equals the lower index.

    Example:
      >>> by_size(jnp.array([0.1, -0.5])).indices.tolist()
      [1, 0]
    """
    order = jnp.argsort(-jnp.abs(contributions), axis=-1, stable=True)
    sorted_ = jnp.take_along_axis(contributions, order, axis=-1)
    return Explanation(order.astype(jnp.int32), sorted_)


def by_pair(explanation: Explanation, size: int) -> Array:
    """What each pair contributes, in the order of the pairs.

    Args:
      explanation: [..., k].
      size: the number of pairs n; static.

    Returns:
      [..., n] float32, zero for pairs that the explanation does not name.

    Example:
      >>> by_pair(Explanation(jnp.array([2]), jnp.array([0.5])), 3).tolist()
      [0.0, 0.0, 0.5]
    """

    def scatter(indices: Array, contributions: Array) -> Array:
        return jnp.zeros(size, contributions.dtype).at[indices].add(contributions)

    for _ in range(explanation.indices.ndim - 1):
        scatter = jax.vmap(scatter)
    return scatter(*explanation)


def check_single(*arrays: Array) -> None:
    """Refuses batches where one representation is explained at a time.

    Args:
      *arrays: what is a scalar for one representation, and has the axes of a batch for several.

    Raises:
      ValueError: one of them has axes.
    """
    if shapes := [array.shape for array in arrays if array.ndim]:
        raise ValueError(
            "explain takes one representation on each side; jax.vmap explains a batch: "
            f"got batches {shapes}"
        )
