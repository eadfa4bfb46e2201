"""The rows of the benchmarks: what chooses their settings, what measures them, trained rivals."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import methods
import rival_methods
import rivals
from real_pairs import Embedded, split, unit

import asif_jax.methods


def coupled(n, d, e, *, noise):
    rng = np.random.default_rng(0)
    cause = rng.normal(size=[n, 4])
    first = cause @ rng.normal(size=[4, d]) + noise * rng.normal(size=[n, d])
    return first, cause @ rng.normal(size=[4, e]) + noise * rng.normal(size=[n, e])


@pytest.mark.parametrize("hidden", [None, 32])
def test_trained_heads_couple_what_they_have_not_seen(hidden):
    x, y = coupled(120, 8, 6, noise=0.05)
    texts = np.stack([y, np.zeros_like(y)], axis=1)
    score = rival_methods.contrastive(x[:100], texts[:100], hidden=hidden, seed=0, steps=150)
    scores = score(x[100:], y[100:])
    assert np.mean(scores.argmax(axis=1) == np.arange(20)) > 0.6


def test_trained_heads_are_a_method_of_live_pairs():
    x, y = coupled(60, 8, 6, noise=0.05)
    method = rival_methods.heads(hidden=None, steps=20)
    pairs = methods.anchors_of(Embedded(x, y[:, None]))
    state = method.fit(pairs._replace(live=np.arange(60) < 50))
    sides = (method.represent(state, side, m) for side, m in ((x, "image"), (y, "text")))
    expected = rival_methods.contrastive(x[:50], y[:50], hidden=None, seed=0, steps=20)(x, y)
    np.testing.assert_allclose(method.score(state, *sides), expected, atol=1e-5)


def test_ranks_and_recall():
    scores, owners = np.array([[0.9, 0.1, 0.8], [0.5, 0.5, 0.7]]), np.array([0, 0, 1])
    to_text, to_image = rivals.ranks(scores, owners)
    assert (to_text.tolist(), to_image.tolist()) == ([1, 1], [1, 2, 2])
    constant = rivals.ranks(np.ones([2, 3]), owners)
    assert (constant[0].tolist(), constant[1].tolist()) == ([2, 2], [1.5, 1.5, 1.5])
    assert rivals.recall(scores, owners) == (1.0, 1.0, 1 / 3, 1.0)


def retrieved(row, n=60):
    x, y = coupled(n + 40, 8, 6, noise=0.05)
    pairs = Embedded(unit(x), unit(np.stack([y, y + 0.05], axis=1)))
    prepared = methods.training(pairs[:n])
    assert all(part.rest.live.sum() == n - n // 5 for part in prepared.parts)
    return prepared, rivals.measure(row, prepared, pairs[n:], rivals.naming_of(pairs[n:]))


@pytest.mark.parametrize("row", [methods.OURS, methods.PROCRUSTES, methods.PUBLISHED], ids=str)
def test_rows_retrieve_and_name(row):
    _, found = retrieved(row)
    assert found.alone.text_10 > 0.7 and found.batch.image_10 > 0.7
    assert found.named.shape == (40,)


def test_a_row_chooses_what_finds_the_pairs_held_out():
    # A penalty that leaves a constant finds nothing.
    grid = {"penalty": (1e9, 0.1)}
    ridge = dataclasses.replace(methods.RIDGE, grid=lambda n: grid, make=weak_ridge)
    prepared, _ = retrieved(ridge)
    assert methods.choose(ridge, prepared.parts) == {"penalty": 0.1}


def weak_ridge(*, penalty):
    method = asif_jax.methods.ridge(penalty=penalty)
    if penalty < 1e3:
        return method
    return method._replace(score=lambda *given: 0.0 * method.score(*given))


def test_equal_captions_are_one_label():
    captions = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]], np.float32)
    naming = rivals.naming_of(Embedded(np.eye(3), captions))
    assert naming.prompts.shape == (2, 1, 2)
    assert naming.labels[0] == naming.labels[2] != naming.labels[1]


def test_splits_are_disjoint_and_fold_by_fold():
    pairs = Embedded(unit(np.eye(10)), np.zeros([10, 1, 2], np.float32))
    tested = []
    for seed in range(5):
        train, test = split(pairs, train=8, test=2, seed=seed)
        rows = np.concatenate([train.images, test.images]).argmax(axis=1)
        assert sorted(rows) == list(range(10))
        tested += test.images.argmax(axis=1).tolist()
    assert sorted(tested) == list(range(10))
