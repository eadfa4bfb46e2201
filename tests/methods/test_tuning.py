import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_jax.methods import hubness, tuning, whitening
from asif_jax.methods.tuning import Surface, best, rule_of_thumb, tune


@pytest.mark.parametrize(
    ("pairs", "k", "p"),
    [(1, 1, 4.0), (344, 69, 4.0), (3995, 799, 4.0), (3996, 800, 4.0), (1_600_000, 800, 8.0)],
)
def test_rule_of_thumb(pairs, k, p):
    assert rule_of_thumb(pairs) == (k, p)


def test_no_pairs():
    with pytest.raises(ValueError, match="got 0"):
        rule_of_thumb(0)


def coupled(n, *, seed=0, noise=0.7, d=(6, 8)):
    """Pairs that share a hidden cause."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=[n, 4])
    return {
        m: (cause @ rng.normal(size=[4, size]) + noise * rng.normal(size=[n, size])).astype(
            np.float32
        )
        for m, size in zip(("image", "text"), d, strict=True)
    }


def recall_of_split(anchors, queries, held_out, *, k, p, at, correct=None):
    """Float64: both directions, by dense vectors over the pairs that are not held out."""
    live = np.setdiff1d(np.arange(len(anchors["image"])), held_out)
    images, texts = (
        oracle.dense_representation(queries[m][held_out], anchors[m][live], k=k, p=p)
        for m in ("image", "text")
    )
    scores = images @ texts.T
    scores = scores if correct is None else np.asarray(correct(scores), np.float64)
    own = np.eye(len(held_out), dtype=bool)
    return [np.mean(oracle.best_rank(s, own) <= at) for s in (scores, scores.T)]


def splits_of(n, held_out, splits, seed):
    keys = jax.random.split(jax.random.key(seed), splits)
    return [np.asarray(jax.random.permutation(key, n))[:held_out] for key in keys]


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 99), st.integers(3, 70), st.booleans())
def test_matches_oracle(seed, held_out, apart):
    pairs = coupled(80, seed=seed)
    queries = coupled(80, seed=seed, noise=0.9) if apart else pairs
    ks, ps = sorted({1, 3, 80 - held_out}), [1.0, 2.5, 9.0]
    options = {"ks": ks, "ps": ps, "splits": 2, "held_out": held_out, "at": 3, "seed": seed}
    surface = tune(pairs, queries=queries if apart else None, **options)
    assert surface.recall.shape == (2, len(ks), 3, 2)
    for recall, rows in zip(surface.recall, splits_of(80, held_out, 2, seed), strict=True):
        expected = [[recall_of_split(pairs, queries, rows, k=k, p=p, at=3) for p in ps] for k in ks]
        # A rounding error may swap two neighbours.
        np.testing.assert_allclose(recall, expected, atol=1.01 / held_out)
        assert np.mean(np.abs(recall - expected) > 1e-5) < 0.1


def test_ties_rank_by_the_lower_index():
    pairs = {"image": np.ones([12, 3], np.float32), "text": np.ones([12, 3], np.float32)}
    surface = tune(pairs, ks=[2, 5], ps=[2.0], splits=1, held_out=6, at=2)
    np.testing.assert_allclose(surface.recall, 2 / 6, rtol=1e-6)


def test_several_captions_of_a_pair():
    pairs = coupled(60)
    once = tune(pairs, ks=[5, 20], ps=[1.0, 4.0], held_out=20)
    repeated = {"image": pairs["image"], "text": np.repeat(pairs["text"][:, None], 3, axis=1)}
    thrice = tune(repeated, queries=pairs, ks=[5, 20], ps=[1.0, 4.0], held_out=20)
    np.testing.assert_allclose(thrice.recall, once.recall, atol=0.051)
    assert np.mean(thrice.recall != once.recall) < 0.1


def test_corrections_apply_to_the_scores():
    pairs = coupled(60)
    options = {"ks": [10], "ps": [2.0], "splits": 1, "held_out": 20, "at": 2}
    found = tune(pairs, correct=hubness.csls, **options)
    (rows,) = splits_of(60, 20, 1, 0)
    expected = recall_of_split(pairs, pairs, rows, k=10, p=2.0, at=2, correct=hubness.csls)
    np.testing.assert_allclose(found.recall[0, 0, 0], expected, atol=0.051)


def whitened(anchors, queries, live):
    fitted = {m: whitening.fit(array, live=live) for m, array in anchors.items()}
    apply = functools.partial(whitening.whiten, shrinkage=0.1)
    return (
        {m: apply(array, fitted[m]) for m, array in anchors.items()},
        {m: apply(array, fitted[m]) for m, array in queries.items()},
    )


def test_a_transform_sees_the_live_anchors_only():
    pairs = {m: array + 4.0 for m, array in coupled(60).items()}
    options = {"ks": [10], "ps": [1.0], "splits": 1, "held_out": 20, "at": 2}
    (rows,) = splits_of(60, 20, 1, 0)
    live = jnp.ones(60, bool).at[rows].set(False)
    white, _ = whitened(pairs, pairs, live)
    expected = recall_of_split(
        {m: np.asarray(a) for m, a in white.items()},
        {m: np.asarray(a) for m, a in white.items()},
        rows,
        k=10,
        p=1.0,
        at=2,
    )
    found = tune(pairs, transform=whitened, **options)
    np.testing.assert_allclose(found.recall[0, 0, 0], expected, atol=0.051)
    assert found.recall.mean() > tune(pairs, **options).recall.mean()


def test_best_takes_the_highest_mean_and_the_smaller_of_equals():
    recall = np.zeros([2, 3, 2, 2])
    recall[0, 1, 1] = [0.8, 0.6]
    recall[1, 1, 1] = [0.4, 0.2]
    recall[1, 2, 0] = [0.5, 0.5]
    recall[0, 2, 1] = recall[1, 2, 1] = [0.5, 0.5]
    choice = best(Surface(np.array([1, 5, 9]), np.array([2.0, 4.0]), recall, 10, 50))
    assert choice[:2] == (5, 4.0)
    np.testing.assert_allclose(choice[2:4], [0.5, np.std([0.7, 0.3], ddof=1)])
    assert choice.each == ((5, 4.0), (9, 2.0))
    single = best(Surface(np.array([1]), np.array([2.0]), recall[:1, 1:2, 1:], 10, 50))
    assert single.deviation == 0.0


def test_default_grid_holds_the_papers_values_and_fits_the_anchors():
    assert 800 in tuning.default_ks(5000) and 8.0 in tune(coupled(40)).ps
    for anchors in (1, 5, 6, 1200, 1201):
        ks = tuning.default_ks(anchors)
        assert ks == sorted(set(ks)) and ks[0] >= 1 and ks[-1] <= anchors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 40}, "40 of 40 pairs"),
        ({"held_out": 0}, "0 of 40"),
        ({"splits": 0}, "0 splits"),
        ({"ks": [33]}, r"1 and the 32 pairs.*\[33\]"),
        ({"ks": [0]}, r"\[0\]"),
        ({"ks": []}, r"k \[\]"),
        ({"ps": [0.0]}, r"p \[0.0\]"),
        ({"queries": {"image": np.ones([3, 6]), "text": np.ones([3, 8])}}, r"\(3, 6\)"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        tune(coupled(40), **options)


def test_bad_embeddings():
    with pytest.raises(ValueError, match="two modalities"):
        tune({"image": np.ones([3, 2])})
    with pytest.raises(ValueError, match="NaN"):
        tune(coupled(40) | {"text": np.full([40, 3], np.nan)})
