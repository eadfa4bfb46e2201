"""The rivals of the benchmarks against references of their own."""

import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
import scipy.linalg

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import rival_methods
import rivals
from real_pairs import Embedded, split, unit

import asif_jax as asif


def coupled(n, d, e, *, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=[n, 4])
    first = cause @ rng.normal(size=[4, d]) + noise * rng.normal(size=[n, d])
    return first, cause @ rng.normal(size=[4, e]) + noise * rng.normal(size=[n, e])


def centred(rows):
    rows = oracle.unit(rows)
    return rows - rows.mean(axis=0)


def test_dense_relative_is_asif_with_every_anchor_and_no_power():
    x, y = coupled(30, 6, 5)
    scores = rival_methods.dense_relative(x[:20], y[:20])(x[20:], y[20:])
    images, texts = (
        asif.project(side[20:], side[:20], k=20, p=1.0, signed=True) for side in (x, y)
    )
    np.testing.assert_allclose(scores, asif.similarity(images, texts), atol=1e-5)


def test_procrustes_is_scipys_and_undoes_a_rotation():
    x, _ = coupled(50, 6, 6)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=[6, 6]))[0]
    y = x @ rotation
    found = rival_methods.procrustes(rival_methods.moments(x, y))
    expected, _ = scipy.linalg.orthogonal_procrustes(centred(x), centred(y))
    scores = found(x, y)
    reference = oracle.unit(centred(x) @ expected) @ oracle.unit(centred(y)).T
    np.testing.assert_allclose(scores, reference, atol=1e-5)
    np.testing.assert_allclose(np.diag(scores), 1.0, atol=1e-5)


def test_ridge_solves_the_augmented_least_squares():
    x, y = coupled(40, 7, 5)
    x0, y0 = centred(x), centred(y)
    penalty = 0.4 * np.trace(x0.T @ x0) / 7
    above = np.concatenate([x0, np.sqrt(penalty) * np.eye(7)])
    linear = np.linalg.lstsq(above, np.concatenate([y0, np.zeros([7, 5])]), rcond=None)[0]
    expected = oracle.unit(x0 @ linear) @ oracle.unit(y0).T
    np.testing.assert_allclose(
        rival_methods.ridge(rival_methods.moments(x, y), penalty=0.4)(x, y), expected, atol=1e-5
    )


def test_canonical_correlations_are_cosines_of_subspace_angles():
    x, y = coupled(60, 6, 5)
    cca = rival_methods.fit_cca(rival_methods.moments(x, y), shrinkage=1e-12)
    angles = scipy.linalg.subspace_angles(centred(x), centred(y))
    np.testing.assert_allclose(np.sort(cca.correlations), np.sort(np.cos(angles)), atol=1e-5)
    u, v = cca.variates(x, y)
    np.testing.assert_allclose(u.T @ u / 60, np.eye(5), atol=1e-5)
    np.testing.assert_allclose(u.T @ v / 60, np.diag(cca.correlations), atol=1e-5)


def test_csa_weighs_the_product_of_unit_variates():
    x, y = coupled(60, 6, 5)
    cca = rival_methods.fit_cca(rival_methods.moments(x, y), shrinkage=0.5)
    u, v = (side[:, :3] for side in cca.variates(x, y))
    expected = (oracle.unit(u) * cca.correlations[:3]) @ oracle.unit(v).T
    scores = rival_methods.csa(rival_methods.moments(x, y), shrinkage=0.5, dimension=3)(x, y)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    both = rival_methods.weighted_cca(rival_methods.moments(x, y), shrinkage=0.5)(x, y)
    u, v = (side * cca.correlations for side in cca.variates(x, y))
    np.testing.assert_allclose(both, oracle.unit(u) @ oracle.unit(v).T, atol=1e-5)


def test_nearest_captions():
    x, y = coupled(20, 4, 5)
    scores = rival_methods.nearest_captions(x, y, k=1)(x, y)
    np.testing.assert_allclose(scores, oracle.unit(y) @ oracle.unit(y).T, atol=1e-5)
    everything = rival_methods.nearest_captions(x, y, k=20)(x, y)
    mean = oracle.unit(oracle.unit(y).mean(axis=0))
    np.testing.assert_allclose(everything[0], oracle.unit(y) @ mean, atol=1e-5)


@pytest.mark.parametrize("hidden", [None, 32])
def test_trained_heads_couple_what_they_have_not_seen(hidden):
    x, y = coupled(120, 8, 6, noise=0.05)
    texts = np.stack([y, np.zeros_like(y)], axis=1)
    score = rival_methods.contrastive(x[:100], texts[:100], hidden=hidden, seed=0, steps=150)
    scores = score(x[100:], y[100:])
    assert np.mean(scores.argmax(axis=1) == np.arange(20)) > 0.6


def test_ranks_and_area_under_the_curve():
    scores, owners = np.array([[0.9, 0.1, 0.8], [0.5, 0.5, 0.7]]), np.array([0, 0, 1])
    to_text, to_image = rivals.ranks(scores, owners)
    assert (to_text.tolist(), to_image.tolist()) == ([1, 1], [1, 2, 2])
    constant = rivals.ranks(np.ones([2, 3]), owners)
    assert (constant[0].tolist(), constant[1].tolist()) == ([2, 2], [1.5, 1.5, 1.5])
    assert rivals.area_under_roc(np.array([2.0, 1.0]), np.array([1.0, 0.0])) == 0.875
    own, other = rivals.own_and_other(np.eye(3), np.arange(3), seed=0)
    assert rivals.area_under_roc(own, other) == 1.0


def test_splits_are_disjoint_and_fold_by_fold():
    pairs = Embedded(unit(np.eye(10)), np.zeros([10, 1, 2], np.float32))
    tested = []
    for seed in range(5):
        train, test = split(pairs, train=8, test=2, seed=seed)
        rows = np.concatenate([train.images, test.images]).argmax(axis=1)
        assert sorted(rows) == list(range(10))
        tested += test.images.argmax(axis=1).tolist()
    assert sorted(tested) == list(range(10))
