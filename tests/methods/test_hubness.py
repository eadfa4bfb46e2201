import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_jax.methods import hubness


def csls(scores, bank, k):
    rows = [np.sort(row)[::-1][:k].mean() for row in scores]
    columns = [np.sort(column)[::-1][:k].mean() for column in bank.T]
    return 2 * scores - np.asarray(rows)[:, None] - np.asarray(columns)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(1, 8))
def test_matches_the_formula(b, m, q, k):
    rng = np.random.default_rng(b + 10 * m + 100 * q)
    scores, bank = rng.normal(size=[b, m]), rng.normal(size=[q, m])
    np.testing.assert_allclose(hubness.csls(scores, k=k), csls(scores, scores, k), atol=1e-5)
    found = hubness.csls(scores, bank=bank, k=k)
    np.testing.assert_allclose(found, csls(scores, bank, k), atol=1e-5)


def test_a_hub_loses_its_place():
    scores = np.eye(4) * 0.5
    scores[:, 0] += 0.6
    assert hubness.csls(scores, k=2).argmax(axis=-1).tolist() == [0, 1, 2, 3]


def test_swapping_the_sides_transposes():
    scores = np.random.default_rng(0).normal(size=[5, 7])
    np.testing.assert_allclose(hubness.csls(scores.T, k=3), hubness.csls(scores, k=3).T, atol=1e-6)


def test_jit_vmap_and_grad():
    scores = np.random.default_rng(0).normal(size=[2, 4, 5]).astype(np.float32)
    together = jax.jit(jax.vmap(hubness.csls))(scores)
    for one, result in zip(scores, together, strict=True):
        np.testing.assert_allclose(result, hubness.csls(one), atol=1e-6)
    assert np.isfinite(jax.grad(lambda s: hubness.csls(s).sum())(scores[0])).all()


def test_errors():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        hubness.csls(np.ones(3))
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 4\)"):
        hubness.csls(np.ones([2, 3]), bank=np.ones([2, 4]))
    with pytest.raises(ValueError, match="0"):
        hubness.csls(np.ones([2, 3]), k=0)
