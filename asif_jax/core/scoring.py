"""Scores between relative representations: similarity, zero-shot classes, ranking."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from asif_jax.core.cosine import normalize
from asif_jax.core.projection import RelativeRepresentation, check_same_anchors

# Measured on two cores, 256 queries by 1,000 items, k = 800, n = 1.57 million: 77, 54, 26, 52 and
# 96 ms with 16, 32, 64, 128 and 256 queries to a table; an [n, 16] table takes 608 ms.
_QUERIES_PER_TABLE = 64
# What is added up then stays in cache: one query by 100,000 items takes 57, 54, 81 and 141 ms with
# blocks of 512, 1024, 2048 and 32768 items; 64 queries take 409 ms with blocks, 721 without.
_ITEMS_PER_BLOCK = 1024
# Where items keep at least this share of the anchors, a product of dense vectors is faster: an
# anchor of a table takes as long as some thirty of a product.
_DENSE = 8
# Numbers in a block of dense vectors.
_DENSE_BLOCK = 1 << 23


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
      [b, m] float32, in [0, 1] (in [-1, 1] for signed representations). Beside the arguments and a
      copy of the result it takes about 40 MB at k = 800, and one array of n numbers, however large
      batch and gallery are.

    Raises:
      ValueError: the two are not batches, or are over different numbers of anchors.

    Example:
      >>> eye = RelativeRepresentation(jnp.ones([2, 1]), jnp.array([[0], [1]]), 2)
      >>> similarity(eye, eye).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    check_batches(queries, gallery)
    batch = queries.values.shape[0]
    if batch == 1:
        return _score_one(queries, gallery)
    if gallery.values.shape[1] * _DENSE >= queries.size:
        return _score_dense(queries, gallery)
    score = functools.partial(_score_table, gallery=gallery)
    if batch <= _QUERIES_PER_TABLE:
        return score(queries)
    tables, surplus = -(-batch // _QUERIES_PER_TABLE), -batch % _QUERIES_PER_TABLE

    def to_tables(array):
        return jnp.pad(array, ((0, surplus), (0, 0))).reshape(tables, _QUERIES_PER_TABLE, -1)

    scores = jax.lax.map(score, jax.tree.map(to_tables, queries))
    return scores.reshape(tables * _QUERIES_PER_TABLE, -1)[:batch]


def check_batches(queries: RelativeRepresentation, gallery: RelativeRepresentation) -> None:
    """Refuses what is not two batches of representations over the same anchors.

    Args:
      queries: [b, k] representations.
      gallery: [m, l] representations.

    Raises:
      ValueError: other shapes, or different numbers of anchors.
    """
    check_same_anchors(queries, gallery)
    if queries.values.ndim != 2 or gallery.values.ndim != 2:
        raise ValueError(
            "queries and gallery must be [batch, k]: "
            f"got {queries.values.shape} and {gallery.values.shape}"
        )


def _score_one(query: RelativeRepresentation, gallery: RelativeRepresentation) -> Array:
    """Scores a single query, [1, m], through its dense vector [n]."""
    dense = jnp.zeros(query.size, query.values.dtype).at[query.indices[0]].add(query.values[0])

    def score(values: Array, indices: Array) -> Array:
        return jnp.sum(dense[indices] * values, axis=-1, keepdims=True)

    return _over_blocks(score, gallery)


def _score_table(queries: RelativeRepresentation, gallery: RelativeRepresentation) -> Array:
    """Scores a few queries, [b, m], through a table of the anchors that they keep.

    The anchors that some query keeps get rows of a small dense [rows, b] table; every other anchor
    shares a row of zeros. A gallery item then adds up the rows of its anchors, and most of what it
    reads lies in cache, however many anchors there are.
    """
    b, k = queries.values.shape
    zeros = b * k
    # Of the queries that keep an anchor one wins, and its slot becomes the anchor's row.
    row_of_anchor = jnp.full(queries.size, zeros, jnp.int32)
    row_of_anchor = row_of_anchor.at[queries.indices.reshape(-1)].set(jnp.arange(zeros))
    table = jnp.zeros((zeros + 1, b), queries.values.dtype)
    table = table.at[row_of_anchor[queries.indices], jnp.arange(b)[:, None]].add(queries.values)

    def add(scores, item):
        values, rows = item
        return scores + values[:, None] * table[rows], None

    def score(values: Array, indices: Array) -> Array:
        start = jnp.zeros((values.shape[0], b), table.dtype)
        return jax.lax.scan(add, start, (values.T, row_of_anchor[indices].T))[0]

    return _over_blocks(score, gallery)


def _score_dense(queries: RelativeRepresentation, gallery: RelativeRepresentation) -> Array:
    """Scores as the product of dense vectors, [b, m], of some items at a time."""
    left = _dense(queries.values, queries.indices, queries.size)

    def score(values: Array, indices: Array) -> Array:
        right = _dense(values, indices, gallery.size)
        return jnp.matmul(right, left.T, precision=jax.lax.Precision.HIGHEST)

    return _over_blocks(score, gallery, block=max(1, _DENSE_BLOCK // max(gallery.size, 1)))


def _dense(values: Array, indices: Array, size: int) -> Array:
    """[b, n] vectors of representations."""
    rows = jnp.arange(values.shape[0])[:, None]
    return jnp.zeros((values.shape[0], size), values.dtype).at[rows, indices].add(values)


def _over_blocks(
    score: Callable[[Array, Array], Array],
    gallery: RelativeRepresentation,
    *,
    block: int = _ITEMS_PER_BLOCK,
) -> Array:
    """Scores the gallery, [b, m], a block of items after another, each [block, b]."""
    items = gallery.values.shape[0]
    if items <= block:
        return score(gallery.values, gallery.indices).T
    starts = jnp.arange(0, items, block)

    def score_block(start: Array) -> Array:
        # The last block begins further left, so that all are of one size.
        start = jnp.minimum(start, items - block)
        arrays = gallery.values, gallery.indices
        return score(*(jax.lax.dynamic_slice_in_dim(a, start, block) for a in arrays))

    last = items - (len(starts) - 1) * block
    scores = jax.lax.map(score_block, starts)
    scores = jnp.concatenate([scores[:-1].reshape(-1, scores.shape[-1]), scores[-1, -last:]])
    return scores.T


@jax.jit
def class_scores(images: RelativeRepresentation, prompts: RelativeRepresentation) -> Array:
    """Score of every image for every class: the largest over the prompts of the class.

    This is the rule of the published code ("max"). For the rule of CLIP, represent the embedding
    that `mean_prompts` returns, and pass one prompt per class.

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
    """One embedding per class: the mean of its prompts' unit embeddings, normalized (CLIP's rule).

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
