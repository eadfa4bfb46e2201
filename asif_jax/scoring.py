"""Scores between relative representations: similarity, zero-shot classes, ranking."""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.projection import RelativeRepresentation, check_same_anchors, normalize

# Queries that share one table of anchors: a row of the table is then one 64-byte cache line.
_QUERIES_PER_TABLE = 16


@jax.jit
def similarity(queries: RelativeRepresentation, gallery: RelativeRepresentation) -> Array:
    """Cosine of every query to every gallery item, over the anchors both resemble.

    ASIF, section 3: the score of an image and a text is the inner product of their relative
    representations, a sum over named pairs.

    Args:
      queries: [b, k] representations, for example of images.
      gallery: [m, l] representations over the same anchors, for example of texts; l may differ
        from k.

    Returns:
      [b, m] float32, in [0, 1] (in [-1, 1] for signed representations).

    Raises:
      ValueError: the two are not batches, or are over different numbers of anchors.

    Example:
      >>> eye = RelativeRepresentation(jnp.ones([2, 1]), jnp.array([[0], [1]]), 2)
      >>> similarity(eye, eye).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    check_same_anchors(queries, gallery)
    if queries.values.ndim != 2 or gallery.values.ndim != 2:
        raise ValueError(
            "queries and gallery must be [batch, k]: "
            f"got {queries.values.shape} and {gallery.values.shape}"
        )
    score = functools.partial(_score_block, gallery=gallery)
    batch = queries.values.shape[0]
    if batch <= _QUERIES_PER_TABLE:
        return score(queries)
    blocks, surplus = -(-batch // _QUERIES_PER_TABLE), -batch % _QUERIES_PER_TABLE

    def to_blocks(array):
        return jnp.pad(array, ((0, surplus), (0, 0))).reshape(blocks, _QUERIES_PER_TABLE, -1)

    scores = jax.lax.map(score, jax.tree.map(to_blocks, queries))
    return scores.reshape(blocks * _QUERIES_PER_TABLE, -1)[:batch]


def _score_block(queries: RelativeRepresentation, gallery: RelativeRepresentation) -> Array:
    """Scores a few queries, [b, m], by scattering them into an [n, b] table and gathering rows."""
    columns = jnp.arange(queries.values.shape[0])[:, None]
    table = jnp.zeros((queries.size, queries.values.shape[0]), queries.values.dtype)
    table = table.at[queries.indices, columns].add(queries.values)
    return jnp.sum(table[gallery.indices] * gallery.values[..., None], axis=-2).T


@jax.jit
def class_scores(images: RelativeRepresentation, prompts: RelativeRepresentation) -> Array:
    """Score of every image for every class: the largest over the prompts of the class.

    This is the published code's rule ("max"). For CLIP's rule, represent the embedding that
    `mean_prompts` gives and pass one prompt a class.

    Args:
      images: [b, k] representations.
      prompts: [classes, k], or [classes, prompts, k], representations of the classes' prompts;
        prompts that only fill the array may have zero embeddings.

    Returns:
      [b, classes] float32 scores.

    Raises:
      ValueError: shapes that do not fit, or different numbers of anchors.

    Example:
      >>> image = RelativeRepresentation(jnp.ones([1, 1]), jnp.array([[1]]), 2)
      >>> prompts = RelativeRepresentation(jnp.ones([2, 1, 1]), jnp.array([[[0]], [[1]]]), 2)
      >>> class_scores(image, prompts).tolist()
      [[0.0, 1.0]]
    """
    if prompts.values.ndim == 2:
        return similarity(images, prompts)
    if prompts.values.ndim != 3:
        raise ValueError(
            f"prompts must be [classes, k] or [classes, prompts, k]: got {prompts.values.shape}"
        )
    classes, per_class, _ = prompts.values.shape
    flat = jax.tree.map(lambda array: array.reshape(classes * per_class, -1), prompts)
    scores = similarity(images, flat)
    return scores.reshape(-1, classes, per_class).max(axis=-1)


def mean_prompts(embeddings: ArrayLike) -> Array:
    """One embedding a class: the mean of its prompts' unit embeddings, normalized (CLIP's rule).

    Args:
      embeddings: [classes, prompts, d] real.

    Returns:
      [classes, d] float32 of unit length.

    Example:
      >>> mean_prompts([[[2.0, 0.0], [0.0, 1.0]]]).round(3).tolist()
      [[0.7070000171661377, 0.7070000171661377]]
    """
    return normalize(jnp.mean(normalize(embeddings), axis=-2))


@jax.jit
def classify(images: RelativeRepresentation, prompts: RelativeRepresentation) -> Array:
    """The class of each image: the one with the highest score, the first of equals.

    Args:
      images: [b, k] representations.
      prompts: [classes, k] or [classes, prompts, k] representations, as for `class_scores`.

    Returns:
      [b] int32 class indices.

    Example:
      >>> image = RelativeRepresentation(jnp.ones([1, 1]), jnp.array([[1]]), 2)
      >>> prompts = RelativeRepresentation(jnp.ones([2, 1]), jnp.array([[0], [1]]), 2)
      >>> classify(image, prompts).tolist()
      [1]
    """
    return jnp.argmax(class_scores(images, prompts), axis=-1).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames="top")
def rank(scores: ArrayLike, *, top: int) -> tuple[Array, Array]:
    """The best gallery items of each query, best first, ties to the lower index.

    Args:
      scores: [..., m] real.
      top: how many, at most m; static.

    Returns:
      [..., top] scores and [..., top] int32 gallery indices.

    Raises:
      ValueError: top outside 1..m.

    Example:
      >>> rank([0.1, 0.7, 0.4], top=2)[1].tolist()
      [1, 2]
    """
    scores = jnp.asarray(scores)
    if not 1 <= top <= scores.shape[-1]:
        raise ValueError(f"top must lie between 1 and the gallery: got {top}, {scores.shape}")
    return jax.lax.top_k(scores, top)
