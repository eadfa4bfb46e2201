import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_jax.core.captions import nearest_pairs
from asif_jax.core.nearest import nearest_anchors


def quadratic_means(embeddings, captions):
    """[b, n] float64, over the captions that are not zero."""
    single = np.maximum(np.einsum("bd,ncd->bnc", oracle.unit(embeddings), oracle.unit(captions)), 0)
    counts = np.maximum((captions != 0).any(axis=-1).sum(axis=-1), 1)
    return np.sqrt((single**2).sum(axis=-1) / counts)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 4), st.data())
def test_matches_the_formula(n, c, data):
    k = data.draw(st.integers(1, n))
    rng = np.random.default_rng(n + 20 * c)
    captions = rng.normal(size=[n, c, 5])
    captions[rng.random([n, c]) < 0.3] = 0.0
    embeddings = rng.normal(size=[6, 5])
    expected = quadratic_means(embeddings, captions)
    for memory in (1, 2**30):
        values, indices = nearest_pairs(embeddings, captions, k, memory=memory)
        assert (np.diff(indices, axis=-1) > 0).all()
        np.testing.assert_allclose(
            values, np.take_along_axis(expected, np.asarray(indices), axis=-1), atol=1e-5
        )
        best = np.sort(expected, axis=-1)[:, ::-1][:, :k]
        np.testing.assert_allclose(np.sort(values, axis=-1)[:, ::-1], best, atol=1e-5)


def test_one_caption_is_the_plain_search():
    rng = np.random.default_rng(0)
    texts, embeddings = np.abs(rng.normal(size=[30, 4])), np.abs(rng.normal(size=[5, 4]))
    found, expected = (
        nearest_pairs(embeddings, texts[:, None], 7),
        nearest_anchors(embeddings, texts, 7),
    )
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)


def test_ties_and_dead_pairs():
    captions = np.ones([4, 2, 3])
    live = np.array([True, False, True, True])
    values, indices = nearest_pairs(np.ones(3), captions, 2, live=live)
    assert indices.tolist() == [0, 2]
    np.testing.assert_allclose(values, 1.0, rtol=1e-6)


def test_jit_vmap_and_grad():
    rng = np.random.default_rng(0)
    captions = rng.normal(size=[6, 2, 3]).astype(np.float32)
    embeddings = rng.normal(size=[2, 4, 3]).astype(np.float32)
    search = jax.jit(lambda x: nearest_pairs(x, captions, 3))
    values, indices = jax.vmap(search)(embeddings)
    expected = nearest_pairs(embeddings, captions, 3)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_allclose(values, expected[0], atol=1e-6)
    slope = jax.grad(lambda x: nearest_pairs(x, captions, 6)[0].sum())(embeddings[0])
    assert np.isfinite(slope).all()


def test_errors():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2, 1, 4\)"):
        nearest_pairs(np.ones(3), np.ones([2, 1, 4]), 1)
    with pytest.raises(ValueError, match="k=3, n=2"):
        nearest_pairs(np.ones(4), np.ones([2, 1, 4]), 3)
