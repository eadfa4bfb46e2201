import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asif_jax.encoders.layers.pooling import POOLINGS, pool_tokens

TOKENS = np.random.default_rng(0).normal(size=[3, 6, 4]).astype(np.float32)
MASK = np.arange(6) < np.array([[6], [3], [1]])


def oracle(name, row):
    """Of the real tokens of one sentence, float64."""
    row = row.astype(np.float64)
    places = np.arange(1, len(row) + 1)
    return {
        "cls": row[0],
        "max": row.max(axis=0),
        "mean": row.mean(axis=0),
        "mean_sqrt_len_tokens": row.sum(axis=0) / np.sqrt(len(row)),
        "weightedmean": (row * places[:, None]).sum(axis=0) / places.sum(),
        "lasttoken": row[-1],
    }[name]


@pytest.mark.parametrize("name", POOLINGS)
def test_matches_oracle(name):
    expected = [oracle(name, row[real]) for row, real in zip(TOKENS, MASK, strict=True)]
    result = jax.jit(pool_tokens, static_argnums=2)(TOKENS, MASK, (name,))
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_changes_nothing(name):
    longer = np.pad(TOKENS, ((0, 0), (0, 5), (0, 0)), constant_values=7.0)
    padded = pool_tokens(jnp.asarray(longer), jnp.asarray(np.pad(MASK, ((0, 0), (0, 5)))), (name,))
    np.testing.assert_allclose(padded, pool_tokens(TOKENS, MASK, (name,)), atol=1e-6)


def test_several_are_concatenated():
    result = pool_tokens(TOKENS, MASK, ("max", "cls"))
    assert result.shape == (3, 8)
    np.testing.assert_array_equal(result[:, :4], pool_tokens(TOKENS, MASK, ("max",)))
    np.testing.assert_array_equal(result[:, 4:], pool_tokens(TOKENS, MASK, ("cls",)))


@pytest.mark.parametrize("name", POOLINGS)
def test_half_precision_is_pooled_in_float32(name):
    # 256 ones and a small number sum to 256 in bfloat16, whose spacing is 2 there.
    tokens = jnp.ones([1, 257, 1], jnp.bfloat16)
    result = pool_tokens(tokens, jnp.ones([1, 257], bool), (name,))
    assert result.dtype == jnp.float32
    expected = 257**0.5 if name == "mean_sqrt_len_tokens" else 1.0
    np.testing.assert_allclose(result, [[expected]], rtol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_a_sentence_without_tokens_stays_finite(name):
    nothing = jnp.zeros([3, 6], bool)
    assert np.isfinite(pool_tokens(TOKENS, nothing, (name,))).all()
    gradient = jax.grad(lambda tokens: pool_tokens(tokens, nothing, (name,)).sum())(
        jnp.asarray(TOKENS)
    )
    assert np.isfinite(gradient).all()
