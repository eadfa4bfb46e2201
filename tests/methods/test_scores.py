"""Every method against its oracle, over pairs of every awkward kind."""

import jax.numpy as jnp
import numpy as np
import pytest
from method_cases import TABLE, coupled, dimensions, scores

from asif_jax import methods
from asif_jax.core import anchors

CASES = {
    "one text": coupled(30),
    "several texts": coupled(30, captions=3),
    "wide texts": coupled(30, d=6, e=10),
    "fewer than dimensions": coupled(7, captions=2),
}
AWKWARD = {
    "one pair": coupled(1),
    "two pairs": coupled(2),
    "equal pairs": {m: np.repeat(a, 6, axis=0) for m, a in coupled(1).items()},
}


def check(name, pairs, *, state=None, queries=None, oracle_pairs=None, atol=1e-5):
    method, oracle = TABLE[name]
    queries = coupled(8, seed=5, **dimensions(pairs)) if queries is None else queries
    queries["image"][0] = 0.0
    found = scores(method, method.fit(pairs) if state is None else state, queries)
    expected = oracle(
        pairs if oracle_pairs is None else oracle_pairs,
        *(queries["image"], "image", queries["text"], "text"),
    )
    np.testing.assert_allclose(found, expected, atol=atol)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TABLE)
def test_scores_match_the_oracle(name, case):
    check(name, CASES[case])


@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize("name", ["paper", "csa", "procrustes", "ridge", "two_cosines"])
def test_awkward_pairs_match_the_oracle(name, case):
    check(name, AWKWARD[case])


@pytest.mark.parametrize("name", ["paper", "procrustes", "ridge", "two_cosines"])
def test_dead_slots_count_for_nothing_and_poison_nothing(name):
    pairs = coupled(20, captions=3)
    live = np.arange(20) % 3 != 1
    spoilt = anchors.create(pairs)._replace(live=jnp.asarray(live))
    holes = {
        m: jnp.where(live.reshape(-1, *[1] * (a.ndim - 1)), a, jnp.nan)
        for m, a in spoilt.embeddings.items()
    }
    state = TABLE[name][0].fit(spoilt._replace(embeddings=holes))
    alive = {m: a[live] for m, a in pairs.items()}
    check(name, pairs, state=state, oracle_pairs=alive)


@pytest.mark.parametrize("captions", [None, 3])
@pytest.mark.parametrize("name", ["cca", "two_cosines"])
def test_bfloat16_pairs(name, captions):
    pairs = coupled(30, captions=captions)
    state = TABLE[name][0].fit(anchors.create(pairs, dtype=jnp.bfloat16))
    # The pairs are rounded, and for comparison with single pairs the queries are.
    check(name, pairs, state=state, atol=0.05 if name == "two_cosines" else 0.01)


@pytest.mark.parametrize("name", ["asif", "csa", "ridge", "two_cosines"])
def test_three_modalities_and_one_beside_itself(name):
    pairs, queries = coupled(25, speech=7), coupled(6, seed=5, speech=7)
    method, oracle = TABLE[name]
    state = method.fit(pairs)
    for one, other in [("image", "speech"), ("speech", "text"), ("text", "image"), ("text",) * 2]:
        left, right = queries[one], queries[other][:4]
        found = method.score(
            state, method.represent(state, left, one), method.represent(state, right, other)
        )
        np.testing.assert_allclose(found, oracle(pairs, left, one, right, other), atol=1e-5)


@pytest.mark.parametrize("name", TABLE)
def test_nan_poisons_its_own_row_alone_and_batches_may_be_empty(name):
    pairs, method = coupled(12), TABLE[name][0]
    state = method.fit(pairs)
    queries = coupled(4, seed=5)
    clean = scores(method, state, queries)
    queries["image"][1, 3] = np.nan
    queries["text"][2, 0] = np.inf
    found = scores(method, state, queries)
    bad = np.zeros([4, 4], bool)
    bad[1] = bad[:, 2] = True
    assert np.isnan(found[bad]).all()
    np.testing.assert_allclose(found[~bad], clean[~bad], atol=1e-6)
    none = {"image": queries["image"][:0], "text": queries["text"]}
    assert scores(method, state, none).shape == (0, 4)
    none = {"image": queries["image"], "text": queries["text"][:0]}
    assert scores(method, state, none).shape == (4, 0)


def test_methods_are_known_by_name_and_settings():
    for method, _ in TABLE.values():
        again = methods.named(method.name, method.settings)
        assert (again.name, again.settings) == (method.name, method.settings)
    with pytest.raises(ValueError, match="no method 'clip'"):
        methods.named("clip")
    with pytest.raises(ValueError, match="does not take"):
        methods.named("cca", {"k": 3})
    with pytest.raises(ValueError, match="a weight for each"):
        methods.fused(methods.cca(), weights=[1.0, 2.0])
