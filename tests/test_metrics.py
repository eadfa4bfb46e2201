import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asif_jax import metrics

shapes = st.tuples(st.integers(1, 5), st.integers(1, 6))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_ranks_match_oracle(data):
    shape = data.draw(shapes)
    scores = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(0, 3))).astype(np.float32)
    relevant = data.draw(hnp.arrays(bool, shape))
    expected = oracle.best_rank(scores, relevant)
    np.testing.assert_array_equal(metrics.best_rank(scores, relevant), expected)
    np.testing.assert_allclose(metrics.median_rank(scores, relevant), np.median(expected))
    for k in (1, 3):
        recall = metrics.recall_at_k(scores, relevant, k=k)
        np.testing.assert_allclose(recall, np.mean(expected <= k), rtol=1e-6)


def test_top_k_accuracy_counts_labels():
    scores = np.random.default_rng(0).normal(size=[30, 7])
    labels = np.random.default_rng(1).integers(0, 7, size=30)
    for k in (1, 2, 7):
        best = np.argsort(-scores, axis=-1)[:, :k]
        expected = np.mean((best == labels[:, None]).any(axis=-1))
        accuracy = jax.jit(metrics.top_k_accuracy, static_argnames="k")(scores, labels, k=k)
        np.testing.assert_allclose(accuracy, expected, rtol=1e-6)


def test_nan_scores_rank_last():
    assert metrics.best_rank([[np.nan, 0.0]], [[True, False]]).tolist() == [2]


def test_several_right_answers_count_once():
    scores = [[0.9, 0.8, 0.1]]
    assert metrics.best_rank(scores, [[False, True, True]]).tolist() == [2]


def test_vmap():
    scores = np.random.default_rng(0).normal(size=[4, 3, 5])
    relevant = np.random.default_rng(1).random([4, 3, 5]) < 0.3
    expected = [metrics.best_rank(s, r) for s, r in zip(scores, relevant, strict=True)]
    np.testing.assert_array_equal(jax.vmap(metrics.best_rank)(scores, relevant), expected)


def test_shape_error():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        metrics.best_rank(np.zeros([2, 3]), np.zeros([3, 2], bool))
