"""The projection of ASIF: an embedding becomes a sparse vector over named image-text pairs.

Norelli et al., "ASIF: Coupled Data Turns Unimodal Models to Multimodal Without Training",
NeurIPS 2023, section 3.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.cosine import normalize
from asif_jax.core.nearest import DEFAULT_MEMORY, nearest_anchors


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RelativeRepresentation:
    """A batch of k-sparse vectors whose every dimension is one anchor pair.

    Attributes:
      values: [..., k] float32, the kept coordinates; unit length over the last axis, or all zero.
      indices: [..., k] int32, the anchor of each coordinate, ascending within a row. A row that
        resembles fewer than k anchors has value 0 in the surplus slots.
      size: the number of anchors n, that is the length of the vectors; static.
    """

    values: Array
    indices: Array
    size: int = dataclasses.field(metadata={"static": True})

    def __getitem__(self, item) -> "RelativeRepresentation":
        """Selects rows: the same item of `values` and of `indices`."""
        return RelativeRepresentation(self.values[item], self.indices[item], self.size)


def check_same_anchors(first: RelativeRepresentation, second: RelativeRepresentation) -> None:
    """Refuses representations over different numbers of anchors.

    Args:
      first: [..., k] representations.
      second: [..., l] representations.

    Raises:
      ValueError: the sizes differ.
    """
    if first.size != second.size:
        raise ValueError(
            f"representations over different anchors cannot be compared: {first.size} anchors "
            f"(values {first.values.shape}) and {second.size} (values {second.values.shape})"
        )


@functools.partial(jax.jit, static_argnames=("k", "signed", "normalized", "memory"))
def project(
    embeddings: ArrayLike,
    anchors: ArrayLike,
    *,
    k: int = 800,
    p: ArrayLike = 8.0,
    live: ArrayLike | None = None,
    signed: bool = False,
    normalized: bool = False,
    memory: int = DEFAULT_MEMORY,
) -> RelativeRepresentation:
    """Relative representation of embeddings with respect to the anchors of their own modality.

    ASIF, section 3: r = normalize(top_k(s)^p), where s_i is the cosine similarity to anchor i.

    Args:
      embeddings: [..., d] real, of one modality.
      anchors: [n, d] float32 or bfloat16, the embeddings of the n pairs in that modality.
      k: how many similarities are kept, at most n; static. Ties go to the lower anchor index.
      p: the exponent, a real scalar; traced, so that sweeping it compiles nothing.
      live: [n] bool, false for anchors that are removed or not yet filled; all live by default.
      signed: keep negative similarities, as sign(s) |s|^p, which are clipped to zero otherwise.
      normalized: the anchors are unit vectors already, which saves a copy of them.
      memory: bytes that may be used beside the arguments and the result (of one call, before any
        vmap); static. Large batches are then projected in parts.

    Returns:
      The relative representations, [..., k] values and indices. With fewer than k live anchors the
      surplus slots carry value 0. A non-finite embedding gives NaN values in its own row alone; a
      non-finite anchor is never selected.

    Raises:
      ValueError: shapes that do not fit, k outside 1..n, or too little memory for the k best.

    Example:
      >>> r = project([1.0, 2.0], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], k=2, p=1.0)
      >>> sorted(r.indices.tolist())
      [0, 1]
    """
    kept, indices = nearest_anchors(
        embeddings, anchors, k, live=live, normalized=normalized, memory=memory
    )
    return represent_nearest(
        embeddings, kept, indices, size=jnp.asarray(anchors).shape[0], p=p, signed=signed
    )


def represent_nearest(
    embeddings: ArrayLike,
    similarities: Array,
    indices: Array,
    *,
    size: int,
    p: ArrayLike = 8.0,
    signed: bool = False,
) -> RelativeRepresentation:
    """Relative representation of embeddings whose k nearest anchors are known.

    ASIF, section 3, from the power on: r = normalize(s^p) over the kept similarities s.

    Args:
      embeddings: [..., d] real, the embeddings.
      similarities: [..., k] float, those of each to its nearest anchors; -inf in surplus slots.
      indices: [..., k] int32, the anchors.
      size: the number of anchors n.
      p: the exponent, a real scalar.
      signed: keep negative similarities (see `project`).

    Returns:
      [..., k] relative representations.

    Example:
      >>> kept, indices = jnp.array([0.6, 0.8]), jnp.array([1, 5])
      >>> represent_nearest(jnp.ones(3), kept, indices, size=9, p=1.0).values.round(3).tolist()
      [0.6000000238418579, 0.800000011920929]
    """
    kept = jnp.where(jnp.isneginf(similarities), 0.0, similarities)
    values = normalize(power(kept, p, signed=signed))
    # A bad embedding, not a bad anchor, makes its row NaN: anchors are shared by all rows.
    valid_row = jnp.all(jnp.isfinite(jnp.asarray(embeddings)), axis=-1, keepdims=True)
    return RelativeRepresentation(jnp.where(valid_row, values, jnp.nan), indices, size)


def without(representation: RelativeRepresentation, anchors: ArrayLike) -> RelativeRepresentation:
    """Representations that leave out one anchor each, such as those of the anchors themselves.

    Args:
      representation: [b, k] representations.
      anchors: [b] int, the anchor that each row leaves out.

    Returns:
      The representations, normalized again.

    Example:
      >>> r = RelativeRepresentation(jnp.array([[0.6, 0.8]]), jnp.array([[0, 1]]), 2)
      >>> without(r, [0]).values.tolist()
      [[0.0, 1.0]]
    """
    own = representation.indices == jnp.asarray(anchors)[:, None]
    values = normalize(jnp.where(own, 0.0, representation.values))
    return RelativeRepresentation(values, representation.indices, representation.size)


def power(similarities: Array, p: ArrayLike, *, signed: bool = False) -> Array:
    """Raises similarities to the power p, up to a factor common to each row.

    The factor, the row's largest magnitude to the power -p, keeps large powers from underflowing;
    the normalization that follows cancels it.

    Args:
      similarities: [..., k] float.
      p: the exponent, a real scalar.
      signed: sign(s) |s|^p; without it negative similarities become zero.

    Returns:
      [..., k] float of the same dtype, at most 1 in magnitude.

    Example:
      >>> power(jnp.array([0.5, 0.25, -0.5]), 2.0).tolist()
      [1.0, 0.25, 0.0]
    """
    magnitudes = jnp.abs(similarities) if signed else jnp.maximum(similarities, 0.0)
    nonzero = magnitudes > 0.0
    largest = jax.lax.stop_gradient(jnp.max(magnitudes, axis=-1, keepdims=True, initial=0.0))
    ratio = jnp.where(nonzero, magnitudes / jnp.where(largest > 0.0, largest, 1.0), 1.0)
    powers = jnp.where(nonzero, ratio ** jnp.asarray(p, similarities.dtype), 0.0)
    return powers * jnp.sign(similarities) if signed else powers
