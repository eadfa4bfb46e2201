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

# Few shapes, so that few programs are compiled; k goes beyond all of them.
SHAPES = st.sampled_from([(1, 1), (4, 1), (5, 3), (3, 6)])
KS = (1, 2, 3, 6, 7, 1000)
ODD = st.sampled_from([np.nan, -np.inf, np.inf, -0.0, 0.0, 1.0, 2.5])


def figures(scores, relevant):
    """Everything that follows from ranks."""
    recalls = [metrics.recall_at_k(scores, relevant, k=k) for k in KS]
    return metrics.best_rank(scores, relevant), metrics.median_rank(scores, relevant), recalls


def expected_figures(scores, relevant):
    ranks = oracle.best_rank(scores, relevant)
    median = np.median(np.minimum(ranks, np.shape(scores)[-1] + 1))
    found = np.where(np.isinf(ranks), metrics.UNRANKED, ranks)
    return found, median, [np.mean(ranks <= k) for k in KS]


def assert_figures(actual, expected):
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])
    np.testing.assert_allclose(actual[2], expected[2], rtol=1e-6)


@pytest.mark.parametrize("elements", [st.integers(0, 3).map(float), ODD], ids=["ties", "odd"])
def test_ranks_match_oracle(elements):
    jitted = jax.jit(figures)

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def check(data):
        shape = data.draw(SHAPES)
        scores = data.draw(hnp.arrays(np.float32, shape, elements=elements))
        relevant = data.draw(hnp.arrays(bool, shape))
        assert_figures(jitted(scores, relevant), expected_figures(scores, relevant))

    check()


def test_ranks_under_vmap_match_oracle():
    rng = np.random.default_rng(0)
    scores = rng.choice([np.nan, -np.inf, 0.0, 1.0, 2.0], size=[20, 3, 5])
    scores[0], scores[1, 0] = np.nan, np.nan
    relevant = rng.random([20, 3, 5]) < 0.3
    ranks, medians, recalls = jax.jit(jax.vmap(figures))(scores, relevant)
    recalls = np.stack(recalls, axis=-1)
    for *actual, s, r in zip(ranks, medians, recalls, scores, relevant, strict=True):
        assert_figures(actual, expected_figures(s, r))


def labelled(scores, labels):
    """The share of rows that are right at each k, by the oracle."""
    right = np.asarray(labels)[:, None] == np.arange(np.shape(scores)[-1])
    return [np.mean(oracle.best_rank(scores, right) <= k) for k in KS]


@pytest.mark.parametrize("transform", ["jit", "vmap"])
def test_top_k_accuracy_counts_labels(transform):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=[4, 30, 7])
    scores[rng.random(scores.shape) < 0.2] = np.nan
    scores[1, :9] = np.nan
    labels = rng.integers(-3, 10, size=[4, 30])

    def accuracies(scores, labels):
        return jnp.stack([metrics.top_k_accuracy(scores, labels, k=k) for k in KS])

    if transform == "vmap":
        found = jax.jit(jax.vmap(accuracies))(scores, labels)
    else:
        found = list(map(jax.jit(accuracies), scores, labels))
    np.testing.assert_allclose(found, list(map(labelled, scores, labels)), rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 4, 1000])
def test_what_cannot_be_right_is_never_right(k):
    """A query without an answer, a row of NaN, an answer that scores NaN, a label of no class."""
    recall, accuracy = (jax.jit(f) for f in (metrics.recall_at_k, metrics.top_k_accuracy))
    nothing, everything = np.zeros([2, 3], bool), np.ones([2, 3], bool)
    assert recall(np.zeros([2, 3]), nothing, k=k) == 0
    assert recall(np.full([2, 3], np.nan), everything, k=k) == 0
    spoiled = np.asarray([[np.nan, 0, 1], [np.nan, np.nan, 0]])
    assert recall(spoiled, spoiled != spoiled, k=k) == 0
    assert recall(np.zeros([2, 0]), np.zeros([2, 0], bool), k=k) == 0
    labels = np.arange(3)
    assert accuracy(np.full([3, 3], np.nan), labels, k=k) == 0
    labels = np.asarray([-1, -3, 3, 4, 2**31 - 1, -(2**31)])
    assert accuracy(np.zeros([6, 3]), labels, k=k) == 0
    # And NaN hides no right answer among the scores that are numbers.
    assert recall(np.asarray([[np.nan, np.nan, -np.inf]] * 2), everything, k=k) == 1


def test_the_median_counts_what_is_not_found_behind_everything():
    scores, relevant = np.zeros([3, 4]), np.eye(3, 4, dtype=bool)
    relevant[2] = False
    assert metrics.median_rank(scores, relevant) == 2
    relevant[1] = False
    assert metrics.median_rank(scores, relevant) == 5


def test_an_empty_batch_has_no_figures():
    scores, relevant = np.zeros([0, 3]), np.zeros([0, 3], bool)
    assert np.isnan(metrics.median_rank(scores, relevant))
    assert np.isnan(metrics.recall_at_k(scores, relevant, k=1))


def test_several_right_answers_count_once():
    scores = [[0.9, 0.8, 0.1]]
    assert metrics.best_rank(scores, [[False, True, True]]).tolist() == [2]


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
        expected = list(map(jax.jit(function), *arguments))
        found = jax.jit(jax.vmap(function))(*arguments)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_shape_error():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        metrics.best_rank(np.zeros([2, 3]), np.zeros([3, 2], bool))


def test_integer_scores_rank():
    assert metrics.best_rank([[3, 5, 4]], [[True, False, False]]).tolist() == [3]


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_confusion_and_class_accuracy_match_oracle(transform, classes, dtype):
    rng = np.random.default_rng(classes)
    # Some rows are of no class, on either side of those there are.
    labels, predicted = rng.integers(-2, classes + 2, size=[2, 6, 30]).astype(dtype)
    # Whatever a row of no class is said to be, it disturbs nothing.
    hits = (labels == predicted) | (labels < 0) | (labels >= classes)

    def both(labels, predicted, hits):
        confusion = metrics.confusion_matrix(labels, predicted, classes=classes)
        return confusion, metrics.class_accuracy(hits, labels, classes=classes)

    arrays = (labels, predicted, hits)
    if transform is jax.jit:
        found = list(map(jax.jit(both), *arrays))
    else:
        found = zip(*jax.jit(jax.vmap(both))(*arrays), strict=True)
    for (confusion, accuracy), truths, guesses in zip(found, labels, predicted, strict=True):
        expected, counts = np.zeros([classes, classes], int), np.zeros(classes, int)
        for truth, guess in zip(truths.tolist(), guesses.tolist(), strict=True):
            if 0 <= truth < classes:
                counts[truth] += 1
                if 0 <= guess < classes:
                    expected[truth, guess] += 1
        np.testing.assert_array_equal(confusion, expected)
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(accuracy, np.diag(expected) / counts, rtol=1e-6)


def test_classes_that_do_not_exist_are_not_counted():
    found = metrics.confusion_matrix([0, -1, 2, 1], [0, 1, 1, -2], classes=2)
    assert found.tolist() == [[1, 0], [0, 0]]


def test_the_bootstrap_of_a_recall_counts_no_query_without_an_answer():
    data = {"scores": np.zeros([40, 3]), "relevant": np.zeros([40, 3], bool)}
    data["scores"][:20], data["relevant"][:20] = np.nan, True

    def recall(rows):
        return metrics.recall_at_k(rows["scores"], rows["relevant"], k=5)

    interval = metrics.bootstrap_interval(recall, data, jax.random.key(0), resamples=50)
    assert interval.tolist() == [0.0, 0.0]


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
    keys = jax.random.split(key, 50)
    rows = np.asarray(jax.vmap(lambda key: jax.random.randint(key, [4], 0, 4))(keys))
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
