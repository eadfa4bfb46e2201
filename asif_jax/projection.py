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

from asif_jax.selection import top_k


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RelativeRepresentation:
    """A batch of k-sparse vectors whose every dimension is one anchor pair.

    Attributes:
      values: [..., k] float32, the kept coordinates; unit length over the last axis, or all zero.
      indices: [..., k] int32, the anchor of each coordinate, distinct within a row, in no
        particular order. A row that resembles fewer than k anchors has value 0 in the surplus
        slots.
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


def normalize(vectors: ArrayLike) -> Array:
    """Scales vectors to unit length; a zero vector stays zero.

    Args:
      vectors: [..., d] real.

    Returns:
      [..., d] float32 (float64 for float64 input) of unit Euclidean norm over the last axis. A row
      with a non-finite entry becomes NaN, that row only.

    Example:
      >>> normalize([[3.0, 4.0], [0.0, 0.0]]).tolist()
      [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    vectors = jnp.asarray(vectors)
    vectors = vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32))
    # Dividing by the largest entry first keeps the squares from over- and underflowing.
    largest = jnp.max(jnp.abs(vectors), axis=-1, keepdims=True, initial=0.0)
    # The negation lets NaN through, so that a bad row stays visibly bad.
    nonzero = ~(largest < jnp.finfo(vectors.dtype).tiny)
    scaled = vectors / jnp.where(nonzero, jax.lax.stop_gradient(largest), 1.0)
    squared_norm = jnp.sum(jnp.where(nonzero, scaled, 1.0) ** 2, axis=-1, keepdims=True)
    return jnp.where(nonzero, scaled * jax.lax.rsqrt(squared_norm), 0.0)


def cosine_similarities(
    embeddings: ArrayLike, anchors: ArrayLike, *, normalized: bool = False
) -> Array:
    """Cosine similarity of every embedding to every anchor: the dense relative representation.

    Args:
      embeddings: [..., d] real.
      anchors: [n, d] real; in bfloat16 the embeddings are rounded to bfloat16 too and the products
        accumulate in float32.
      normalized: the anchors are unit vectors already, which saves a pass over them.

    Returns:
      [..., n] float32 similarities, s_i = <x, a_i> / (|x| |a_i|). Zero vectors have similarity 0.

    Raises:
      ValueError: the dimensions of embeddings and anchors differ.

    Example:
      >>> cosine_similarities([3.0, 0.0], [[1.0, 0.0], [0.0, 2.0]]).tolist()
      [1.0, 0.0]
    """
    embeddings, anchors = jnp.asarray(embeddings), jnp.asarray(anchors)
    if embeddings.ndim < 1 or anchors.ndim != 2 or embeddings.shape[-1] != anchors.shape[-1]:
        raise ValueError(
            "embeddings [..., d] and anchors [n, d] must share d: "
            f"got embeddings {embeddings.shape} and anchors {anchors.shape}"
        )
    anchors = anchors if normalized else normalize(anchors).astype(_floating(anchors))
    return jnp.einsum(
        "...d,nd->...n",
        normalize(embeddings).astype(anchors.dtype),
        anchors,
        # float32 means float32 on accelerators too; bfloat16 anchors are the way to ask for speed.
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(anchors.dtype, jnp.float32),
    )


def _floating(array: Array) -> jnp.dtype:
    return array.dtype if jnp.issubdtype(array.dtype, jnp.floating) else jnp.dtype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("k", "signed", "normalized"))
def project(
    embeddings: ArrayLike,
    anchors: ArrayLike,
    *,
    k: int = 800,
    p: ArrayLike = 8.0,
    live: ArrayLike | None = None,
    signed: bool = False,
    normalized: bool = False,
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
      normalized: the anchors are unit vectors already, which saves a pass over them.

    Returns:
      The relative representations, [..., k] values and indices. With fewer than k live anchors the
      surplus slots carry value 0. A non-finite embedding gives NaN values in its own row alone; a
      non-finite anchor is never selected.

    Raises:
      ValueError: shapes that do not fit, or k outside 1..n.

    Example:
      >>> r = project([1.0, 2.0], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], k=2, p=1.0)
      >>> sorted(r.indices.tolist())
      [0, 1]
    """
    similarities = cosine_similarities(embeddings, anchors, normalized=normalized)
    n = similarities.shape[-1]
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the number of anchors: got k={k}, n={n}")
    # A bad embedding, not a bad anchor, makes its row NaN: anchors are shared by all rows.
    valid_row = jnp.all(jnp.isfinite(jnp.asarray(embeddings)), axis=-1, keepdims=True)
    if live is not None:
        live = jnp.asarray(live)
        if live.shape != (n,) or live.dtype != jnp.bool_:
            raise ValueError(f"live must be [{n}] bool: got {live.shape} {live.dtype}")
    kept, indices = top_k(similarities, k, live=live)
    kept = jnp.where(jnp.isneginf(kept), 0.0, kept)
    values = normalize(power(kept, p, signed=signed))
    return RelativeRepresentation(jnp.where(valid_row, values, jnp.nan), indices, n)


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
