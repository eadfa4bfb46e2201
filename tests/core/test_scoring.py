import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asif_jax as asif
from asif_jax.core.projection import RelativeRepresentation

N, D = 60, 8


def representations(seed, *shape, k=9, signed=False, size=N):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=[*shape, D]).astype(np.float32)
    anchors = np.random.default_rng(99).normal(size=[size, D]).astype(np.float32)
    return asif.project(embeddings, anchors, k=k, p=2.0, signed=signed)


def oracle_scores(queries, gallery):
    return oracle.to_dense(queries) @ oracle.to_dense(gallery).T


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("b", "m"), [(1, 1), (3, 5), (16, 7), (64, 3), (65, 40), (130, 2)])
def test_similarity_matches_oracle(b, m, signed):
    queries = representations(1, b, signed=signed)
    gallery = representations(2, m, k=20, signed=signed)
    scores = asif.similarity(queries, gallery)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, oracle_scores(queries, gallery), atol=1e-6)


@pytest.mark.parametrize("b", [0, 3, 20, 70])
@pytest.mark.parametrize("m", [0, 4])
def test_empty_batches(b, m):
    scores = asif.similarity(representations(1, b), representations(2, m))
    assert scores.shape == (b, m)


def test_similarity_under_transforms():
    queries, gallery = representations(1, 20), representations(2, 5)
    expected = oracle_scores(queries, gallery)
    jitted = jax.jit(asif.similarity)(queries, gallery)
    np.testing.assert_allclose(jitted, expected, atol=1e-6)
    blocks = jax.tree.map(lambda a: a.reshape(4, 5, -1), queries)
    mapped = jax.vmap(asif.similarity, in_axes=(0, None))(blocks, gallery)
    np.testing.assert_allclose(mapped.reshape(20, 5), expected, atol=1e-6)
    _, scanned = jax.lax.scan(lambda c, q: (c, asif.similarity(q, gallery)), 0, blocks)
    np.testing.assert_allclose(scanned.reshape(20, 5), expected, atol=1e-6)


@pytest.mark.parametrize("b", [3, 20, 70])
def test_similarity_gradient(b):
    queries, gallery = representations(1, b), representations(2, 4)
    weights = np.random.default_rng(3).normal(size=[b, 4])

    def loss(query_values, gallery_values):
        q = RelativeRepresentation(query_values, queries.indices, N)
        g = RelativeRepresentation(gallery_values, gallery.indices, N)
        return jnp.sum(asif.similarity(q, g) * weights)

    gradients = jax.grad(loss, argnums=(0, 1))(queries.values, gallery.values)
    # The score is bilinear: its gradient is the other side, read at one's own indices.
    by_query = np.asarray(weights) @ oracle.to_dense(gallery)
    by_gallery = np.asarray(weights).T @ oracle.to_dense(queries)
    for gradient, dense, side in zip(
        gradients, (by_query, by_gallery), (queries, gallery), strict=True
    ):
        expected = np.take_along_axis(dense, np.asarray(side.indices), axis=-1)
        np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_gradient_reaches_the_embeddings():
    rng = np.random.default_rng(4)
    anchors, image, text = (rng.normal(size=[n, D]) for n in (N, 1, 1))

    def score(x):
        r = asif.project(x, anchors, k=9, p=2.0)
        return asif.similarity(r, asif.project(text, anchors, k=9, p=2.0))[0, 0]

    def oracle_score(x):
        dense = [oracle.dense_representation(y, anchors, k=9, p=2.0) for y in (x, text)]
        return (dense[0] @ dense[1].T)[0, 0]

    direction = rng.normal(size=image.shape)
    slope = (oracle_score(image + 1e-6 * direction) - oracle_score(image - 1e-6 * direction)) / 2e-6
    gradient = jax.grad(score)(jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-3, atol=1e-5)


def test_a_nan_row_poisons_its_own_scores_only():
    queries, gallery = representations(1, 20), representations(2, 5)
    clean = asif.similarity(queries, gallery)
    spoiled = RelativeRepresentation(queries.values.at[3].set(jnp.nan), queries.indices, N)
    scores = asif.similarity(spoiled, gallery)
    others = np.arange(20) != 3
    np.testing.assert_array_equal(scores[others], clean[others])
    assert np.isnan(scores[3]).any()


def test_different_anchors_are_refused():
    with pytest.raises(ValueError, match=r"60 anchors.*50"):
        asif.similarity(representations(1, 2), representations(1, 2, size=50))


def test_unbatched_is_refused():
    with pytest.raises(ValueError, match=r"\(9,\)"):
        asif.similarity(representations(1), representations(1, 2))


def test_class_scores_take_the_best_prompt():
    images, prompts = representations(1, 7), representations(2, 4, 3)
    flat = jax.tree.map(lambda a: a.reshape(12, -1), prompts)
    expected = oracle_scores(images, flat).reshape(7, 4, 3).max(axis=-1)
    np.testing.assert_allclose(asif.class_scores(images, prompts), expected, atol=1e-6)
    np.testing.assert_array_equal(asif.classify(images, prompts), expected.argmax(axis=-1))
    single = asif.class_scores(images, prompts[:, 0])
    np.testing.assert_allclose(single, oracle_scores(images, prompts[:, 0]), atol=1e-6)


def test_filler_prompts_change_nothing():
    anchors = np.random.default_rng(99).normal(size=[N, D])
    embeddings = np.random.default_rng(5).normal(size=[4, 2, D])
    padded = np.concatenate([embeddings, np.zeros([4, 1, D])], axis=1)
    images = representations(1, 7)
    two, three = (asif.project(x, anchors, k=9, p=2.0) for x in (embeddings, padded))
    scores = asif.class_scores(images, two), asif.class_scores(images, three)
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_prompts_of_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(9,\)"):
        asif.class_scores(representations(1, 2), representations(2))


def test_mean_prompts_matches_oracle():
    embeddings = np.random.default_rng(0).normal(size=[4, 3, D])
    expected = oracle.unit(oracle.unit(embeddings).mean(axis=1))
    np.testing.assert_allclose(asif.mean_prompts(embeddings), expected, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=4), st.integers(1, 4))
def test_rank_orders_ties_by_index(scores, top):
    values, indices = asif.rank(np.asarray(scores, np.float32), top=top)
    expected = sorted(range(4), key=lambda i: (-scores[i], i))[:top]
    assert indices.tolist() == expected
    assert values.tolist() == [scores[i] for i in expected]


@pytest.mark.parametrize("top", [0, 5])
def test_rank_refuses_impossible_counts(top):
    with pytest.raises(ValueError, match=f"{top}"):
        asif.rank(np.zeros(4), top=top)
