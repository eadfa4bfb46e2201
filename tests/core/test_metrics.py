import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asif_jax.core import metrics

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


def test_class_metrics_and_intervals_under_vmap():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, size=[2, 4, 10])
    confusion = functools.partial(metrics.confusion_matrix, classes=3)
    accuracy = functools.partial(metrics.class_accuracy, classes=3)
    interval = functools.partial(metrics.bootstrap_interval, jnp.mean, resamples=20)
    keys = jax.random.split(jax.random.key(0), 4)
    hits = labels == predicted
    for function, arguments in (
        (confusion, (labels, predicted)),
        (accuracy, (hits, labels)),
        (interval, (hits, keys)),
    ):
        expected = [function(*row) for row in zip(*arguments, strict=True)]
        np.testing.assert_allclose(jax.vmap(function)(*arguments), expected, rtol=1e-6)


def test_shape_error():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        metrics.best_rank(np.zeros([2, 3]), np.zeros([3, 2], bool))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_ranks_of_odd_scores_match_a_stable_sort(data):
    shape = data.draw(shapes)
    odd = st.sampled_from([np.nan, -np.inf, np.inf, -0.0, 0.0, 1.0, 2.5])
    scores = data.draw(hnp.arrays(np.float32, shape, elements=odd))
    relevant = data.draw(hnp.arrays(bool, shape))
    # NumPy sorts NaN last.
    order = np.argsort(-scores, axis=-1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=-1)
    expected = np.where(hits.any(axis=-1), hits.argmax(axis=-1) + 1, shape[1] + 1)
    np.testing.assert_array_equal(jax.jit(metrics.best_rank)(scores, relevant), expected)


def test_integer_scores_rank():
    assert metrics.best_rank([[3, 5, 4]], [[True, False, False]]).tolist() == [3]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_confusion_and_class_accuracy_match_oracle(classes, count, seed):
    labels, predicted = np.random.default_rng(seed).integers(0, classes, size=[2, count])
    expected = np.zeros([classes, classes], int)
    for truth, guess in zip(labels, predicted, strict=True):
        expected[truth, guess] += 1
    found = metrics.confusion_matrix(labels, predicted, classes=classes)
    np.testing.assert_array_equal(found, expected)
    accuracy = jax.jit(metrics.class_accuracy, static_argnames="classes")(
        labels == predicted, labels, classes=classes
    )
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(accuracy, np.diag(expected) / expected.sum(axis=1), rtol=1e-6)


def test_classes_that_do_not_exist_are_not_counted():
    found = metrics.confusion_matrix([0, -1, 2, 1], [0, 1, 1, -2], classes=2)
    assert found.tolist() == [[1, 0], [0, 0]]


def test_bootstrap_of_few_rows_matches_all_their_resamples():
    values = np.asarray([1.0, 2.0, 9.0], np.float32)
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=3)]
    # Ends between two possible means, which no drawing can confuse.
    low, high = metrics.bootstrap_interval(
        jnp.mean, values, jax.random.key(0), resamples=20_000, confidence=0.8
    )
    for end, tail in ((low, 0.1), (high, 0.9)):
        assert end == pytest.approx(np.quantile(means, tail), abs=1e-6)


def test_bootstrap_of_a_share_matches_the_binomial():
    hits = np.arange(400) < 100
    drawn = np.random.default_rng(0).binomial(400, 0.25, size=20_000) / 400
    interval = metrics.bootstrap_interval(jnp.mean, hits, jax.random.key(0), resamples=4000)
    np.testing.assert_allclose(interval, np.quantile(drawn, [0.025, 0.975]), atol=0.006)


def test_bootstrap_keeps_rows_together_and_takes_pytrees():
    data = {"sum": np.asarray([1.0, 0.0, 4.0, 6.0]), "count": np.asarray([1.0, 2.0, 2.0, 3.0])}
    key = jax.random.key(3)

    def ratio(rows):
        return {"ratio": rows["sum"].sum() / rows["count"].sum(), "each": rows["sum"][:2]}

    found = metrics.bootstrap_interval(ratio, data, key, resamples=50, confidence=0.9)
    rows = [np.asarray(jax.random.randint(k, [4], 0, 4)) for k in jax.random.split(key, 50)]
    ratios = [data["sum"][r].sum() / data["count"][r].sum() for r in rows]
    np.testing.assert_allclose(found["ratio"], np.quantile(ratios, [0.05, 0.95]), rtol=1e-5)
    assert found["each"].shape == (2, 2)


def test_bootstrap_passes_over_what_is_undefined():
    def mean_of_class(rows):
        return metrics.class_accuracy(rows["hits"], rows["labels"], classes=3)

    data = {"hits": np.asarray([True, True, False]), "labels": np.asarray([0, 0, 1])}
    low, high = metrics.bootstrap_interval(mean_of_class, data, jax.random.key(0), resamples=200)
    assert (low.tolist()[:2], high.tolist()[:2]) == ([1.0, 0.0], [1.0, 0.0])
    assert np.isnan(low[2])


@pytest.mark.parametrize("data", [np.zeros([0]), (np.zeros(2), np.zeros(3)), ()])
def test_bootstrap_without_common_rows(data):
    with pytest.raises(ValueError, match="same rows"):
        metrics.bootstrap_interval(lambda rows: 0.0, data, jax.random.key(0))
