import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_jax.methods import whitening


def whitened_cosines(embeddings, queries, *, shrinkage):
    """Float64: cosines after (x - mean) (C + shrinkage * mean variance * I)^(-1/2)."""
    units = oracle.unit(embeddings)
    mean, covariance = units.mean(axis=0), np.cov(units.T, bias=True)
    d = units.shape[1]
    shrunk = covariance + shrinkage * np.trace(covariance) / d * np.eye(d)
    values, vectors = np.linalg.eigh(shrunk)
    root = vectors / np.sqrt(values) @ vectors.T
    rows = oracle.unit((oracle.unit(queries) - mean) @ root)
    return rows @ rows.T


@settings(deadline=None, max_examples=20)
@given(st.integers(4, 40), st.integers(2, 6), st.sampled_from([0.1, 1.0, 10.0]))
def test_cosines_match_the_formula(n, d, shrinkage):
    rng = np.random.default_rng(n * d)
    embeddings = rng.normal(size=[n, d]) + 1.0
    queries = rng.normal(size=[7, d]) + 1.0
    white = whitening.whiten(queries, whitening.fit(embeddings), shrinkage=shrinkage)
    rows = oracle.unit(white)
    expected = whitened_cosines(embeddings, queries, shrinkage=shrinkage)
    np.testing.assert_allclose(rows @ rows.T, expected, atol=2e-4)


def test_without_shrinkage_the_covariance_is_nearly_unit():
    embeddings = np.random.default_rng(0).normal(size=[200, 5]) + 2.0
    fitted = whitening.fit(embeddings)
    white = whitening.whiten(embeddings, fitted, shrinkage=0.0)
    np.testing.assert_allclose(np.cov(np.asarray(white).T, bias=True), np.eye(5), atol=0.02)
    np.testing.assert_allclose(np.mean(white, axis=0), 0.0, atol=1e-4)
    np.testing.assert_array_equal(white, whitening.whiten(embeddings, fitted, shrinkage=1e-3))


def test_dead_rows_do_not_count():
    embeddings = np.random.default_rng(0).normal(size=[20, 4])
    live = np.arange(20) < 15
    expected = whitening.fit(embeddings[:15])
    embeddings[15:] = np.nan
    fitted = whitening.fit(embeddings, live=live)
    np.testing.assert_allclose(fitted.mean, expected.mean, atol=1e-6)
    np.testing.assert_allclose(fitted.covariance, expected.covariance, atol=1e-6)


def test_few_anchors_in_many_dimensions_stay_finite():
    embeddings = np.random.default_rng(0).normal(size=[3, 10])
    for shrinkage in (0.0, 1.0):
        white = whitening.whiten(embeddings, whitening.fit(embeddings), shrinkage=shrinkage)
        assert np.isfinite(white).all()
    alone = whitening.whiten(embeddings[:1], whitening.fit(embeddings[:1]))
    np.testing.assert_allclose(alone, np.zeros([1, 10]), atol=1e-5)


def test_zero_stays_zero():
    fitted = whitening.fit(np.random.default_rng(0).normal(size=[9, 3]))
    np.testing.assert_array_equal(whitening.whiten(np.zeros([2, 3]), fitted), np.zeros([2, 3]))


def test_jit_vmap_and_grad():
    sets = np.random.default_rng(0).normal(size=[3, 9, 4]).astype(np.float32)

    def white(rows):
        return whitening.whiten(rows, whitening.fit(rows))

    together = jax.jit(jax.vmap(white))(sets)
    for rows, result in zip(sets, together, strict=True):
        np.testing.assert_allclose(result, white(rows), atol=1e-4)
    fitted = whitening.fit(sets[0])
    slope = jax.grad(lambda s: whitening.whiten(sets[0], fitted, shrinkage=s).sum())(1.0)
    assert np.isfinite(slope)


def test_errors():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        whitening.fit(np.ones(3))
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
        whitening.fit(np.ones([2, 3]), live=[True] * 3)
    with pytest.raises(ValueError, match=r"\(2, 4\).*3 dimensions"):
        whitening.whiten(np.ones([2, 4]), whitening.fit(np.eye(3)))
