import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asif_jax.encoders.layers.attention import attention, gelu, quick_gelu


def arrays(seed=0, queries=5, keys=7):
    rng = np.random.default_rng(seed)
    shapes = [(2, queries, 3, 4), (2, keys, 3, 4), (2, keys, 3, 4)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def oracle_attention(query, key, value, mask=None, bias=None):
    """Float64, with the softmax as it is written in the paper."""
    query, key, value = (x.astype(np.float64) for x in (query, key, value))
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
    logits = logits + (0 if bias is None else bias)
    weights = np.exp(logits) * (1 if mask is None else mask)
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, value)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_matches_oracle(masked, biased):
    rng = np.random.default_rng(1)
    options = {}
    if masked:
        options["mask"] = np.arange(7) < np.array([7, 3])[:, None, None, None]
    if biased:
        options["bias"] = rng.normal(size=[3, 5, 7]).astype(np.float32)
    expected = oracle_attention(*arrays(), **options)
    result = jax.jit(attention)(*map(jnp.asarray, arrays()), **options)
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_half_precision_keeps_its_type_and_is_close():
    halves = [jnp.asarray(x, jnp.bfloat16) for x in arrays()]
    result = attention(*halves)
    assert result.dtype == jnp.bfloat16
    expected = oracle_attention(*(np.asarray(x, np.float64) for x in halves))
    np.testing.assert_allclose(np.asarray(result, np.float64), expected, atol=0.02)


def test_large_logits_and_a_query_that_sees_nothing_stay_finite():
    query, key, value = map(jnp.asarray, arrays())
    assert np.isfinite(attention(1e4 * query, 1e4 * key, value)).all()
    nothing = attention(query, key, value, mask=jnp.zeros([2, 1, 1, 7], bool))
    expected = np.broadcast_to(value.mean(axis=1, keepdims=True), nothing.shape)
    np.testing.assert_allclose(nothing, expected, atol=1e-6)


def test_the_gradient_is_that_of_the_formula():
    query, key, value = map(jnp.asarray, arrays())
    weight = np.random.default_rng(2).normal(size=[2, 5, 3, 4])
    direction = np.random.default_rng(3).normal(size=query.shape)
    gradient = jax.grad(lambda x: jnp.sum(attention(x, key, value) * weight))(query)

    def loss(step):
        moved = np.asarray(query, np.float64) + step * direction
        return np.sum(oracle_attention(moved, np.asarray(key), np.asarray(value)) * weight)

    slope = (loss(1e-4) - loss(-1e-4)) / 2e-4
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-4)


def test_activations_match_their_formulas():
    x = np.linspace(-8, 8, 1001)
    erf = np.vectorize(math.erf)
    expected = x * 0.5 * (1 + erf(x / math.sqrt(2)))
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32)), expected, atol=1e-6)
    expected = x / (1 + np.exp(-1.702 * x))
    np.testing.assert_allclose(quick_gelu(jnp.asarray(x, jnp.float32)), expected, atol=1e-6)
