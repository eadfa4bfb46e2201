import jax
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_jax.core.projection import RelativeRepresentation, project
from asif_jax.methods import hubness, trust


def pairs(n, *, seed=0, causes=4, dimensions=(6, 5)):
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=[n, causes])
    return [
        cause @ rng.normal(size=[causes, d]) + 0.2 * rng.normal(size=[n, d]) for d in dimensions
    ]


def represent(sides, *, k, p=1.0):
    return [project(side, side, k=k, p=p) for side in sides]


def expected_agreement(representations):
    """Float64, by dense vectors."""
    dense = [oracle.to_dense(r) for r in representations]
    for rows in dense:
        np.fill_diagonal(rows, 0.0)
    scores = oracle.unit(dense[0]) @ oracle.unit(dense[1]).T
    scores = np.asarray(hubness.csls(scores), np.float64)
    n = len(scores)
    return [
        (np.sum(scores[i] < scores[i, i]) + np.sum(scores[:, i] < scores[i, i])) / 2 / max(n - 1, 1)
        for i in range(n)
    ]


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 25), st.data())
def test_matches_oracle(n, data):
    k = data.draw(st.integers(1, n))
    representations = represent(pairs(n, seed=n), k=k)
    found = trust.agreement(*representations)
    # Rounding may swap two neighbours in each direction.
    np.testing.assert_allclose(
        found, expected_agreement(representations), atol=2.01 / max(n - 1, 1) if k > 1 else 1.0
    )
    assert ((found >= 0) & (found <= 1)).all()


def test_wrong_pairs_rank_below_right_ones():
    images, texts = pairs(150, causes=10, dimensions=(12, 11))
    wrong = np.arange(0, 150, 15)
    texts[wrong] = texts[np.roll(wrong, 1)]
    found = np.asarray(trust.agreement(*represent([images, texts], k=150)))
    right = np.delete(found, wrong)
    assert np.mean(found[wrong][:, None] < right) > 0.9


def test_weights_scale_the_terms_of_a_score():
    sides = pairs(20)
    weights = np.random.default_rng(0).random(20)
    weights[4] = 0.0
    for representation in represent(sides, k=8, p=2.0):
        dense = oracle.unit(oracle.to_dense(representation) * np.sqrt(weights))
        weighed = trust.weigh(representation, weights)
        np.testing.assert_allclose(oracle.to_dense(weighed), dense, atol=1e-6)
    nothing = trust.weigh(representation, np.zeros(20))
    np.testing.assert_array_equal(nothing.values, np.zeros([20, 8]))


def test_even_weights_change_nothing():
    (representation, _) = represent(pairs(12), k=5)
    weighed = trust.weigh(representation, np.full(12, 0.3))
    np.testing.assert_allclose(weighed.values, representation.values, atol=1e-6)


def test_vmap():
    representation, _ = represent(pairs(12), k=5)
    weights = np.random.default_rng(0).random([3, 12]).astype(np.float32)
    together = jax.vmap(trust.weigh, in_axes=(None, 0))(representation, weights)
    for one, values in zip(weights, together.values, strict=True):
        np.testing.assert_allclose(values, trust.weigh(representation, one).values, atol=1e-6)


def test_errors():
    first, second = represent(pairs(6), k=3)
    with pytest.raises(ValueError, match=r"6 anchors themselves.*\(4, 3\)"):
        trust.agreement(first, second[:4])
    with pytest.raises(ValueError, match=r"\[6\].*\(5,\)"):
        trust.weigh(first, np.ones(5))
    other = RelativeRepresentation(second.values, second.indices, 7)
    with pytest.raises(ValueError, match="over 7 anchors"):
        trust.agreement(first, other)
