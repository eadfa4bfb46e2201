"""Every score is a sum over named pairs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from method_cases import TABLE, coupled

from asif_jax.core import anchors


@functools.cache
def compiled(name):
    """Fits, scores and explains: one program for every method and shape."""
    method, _ = TABLE[name]

    @jax.jit
    def run(pairs, queries):
        state = method.fit(pairs)
        sides = [method.represent(state, queries[m], m) for m in ("image", "text")]
        parts = jax.vmap(method.explain, (None, 0, 0))(state, *sides)
        return method.score(state, *sides), parts

    return run


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000), captions=st.sampled_from([None, 3]), dead=st.booleans())
@pytest.mark.parametrize("name", TABLE)
def test_contributions_add_up_to_the_score(name, seed, captions, dead):
    pairs = anchors.create(coupled(20, captions=captions, seed=seed))
    if dead:
        live = jnp.arange(20) % 4 != seed % 4
        holes = {
            m: jnp.where(live.reshape(-1, *[1] * (a.ndim - 1)), a, jnp.nan)
            for m, a in pairs.embeddings.items()
        }
        pairs = anchors.Anchors(holes, live)
    scores, parts = compiled(name)(pairs, coupled(5, seed=seed + 1))
    np.testing.assert_allclose(np.sum(parts.contributions, axis=-1), np.diagonal(scores), atol=1e-5)
    live = np.asarray(pairs.live)
    for indices, contributions in zip(*map(np.asarray, parts), strict=True):
        assert len(set(indices)) == len(indices)
        assert live[indices[contributions != 0.0]].all()
        assert (np.diff(np.abs(contributions)) <= 0.0).all()


@pytest.mark.parametrize("name", ["cca", "ridge", "procrustes", "csa", "two_cosines"])
def test_pairs_speak_against_a_match_too(name):
    _, parts = compiled(name)(anchors.create(coupled(20)), coupled(5, seed=5))
    assert np.min(parts.contributions) < 0.0 < np.max(parts.contributions)


@pytest.mark.parametrize("name", ["cca", "asif", "two_cosines", "fused", "with_square_root"])
def test_modalities_in_either_order_and_one_beside_itself(name):
    pairs, queries = coupled(20, speech=6), coupled(2, seed=5, speech=6)
    method, _ = TABLE[name]
    state = method.fit(pairs)
    for one, other in [("text", "image"), ("text", "speech"), ("image", "image")]:
        left, right = (
            method.represent(state, queries[m][row], m) for m, row in [(one, 0), (other, 1)]
        )
        scores = method.score(state, *(jax.tree.map(lambda a: a[None], r) for r in (left, right)))
        parts = method.explain(state, left, right)
        np.testing.assert_allclose(jnp.sum(parts.contributions), scores[0, 0], atol=1e-5)


@pytest.mark.parametrize("name", TABLE)
def test_a_batch_is_refused(name):
    pairs, (method, _) = coupled(10), TABLE[name]
    state = method.fit(pairs)
    sides = [method.represent(state, pairs[m][:2], m) for m in ("image", "text")]
    with pytest.raises(ValueError, match="one representation on each side"):
        method.explain(state, *sides)
