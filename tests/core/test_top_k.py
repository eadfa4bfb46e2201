import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asif_jax as asif
from asif_jax.core import top_k as selection

# Short rows are sorted; longer ones searched at once, in blocks, and in blocks of blocks.
SIZES = [(7, 3), (1024, 800), (1025, 40), (2050, 2050), (20_001, 50), (70_000, 100), (70_001, 1)]
BATCH = 3

# Step by step, each of its many small programs would be compiled on its own, which takes longer.
top_k = jax.jit(selection.top_k, static_argnums=1)

RNG = np.random.default_rng(0)


def one_block(n):
    """All of the largest entries side by side."""
    row = RNG.normal(size=[BATCH, n])
    row[:, n // 3 : n // 3 + max(n // 8, 1)] += 100
    return row


CASES = {
    "normal": lambda n: RNG.normal(size=[BATCH, n]),
    "similarities": lambda n: np.abs(RNG.normal(size=[BATCH, n])) ** 8,
    "equal": lambda n: np.ones([BATCH, n]),
    "ascending": lambda n: np.sort(RNG.normal(size=[BATCH, n])),
    "descending": lambda n: -np.sort(RNG.normal(size=[BATCH, n])),
    "ties": lambda n: RNG.integers(0, 5, size=[BATCH, n]),
    "one block": one_block,
    "zeros of both signs": lambda n: RNG.choice([0.0, -0.0, 1.0, -1.0], size=[BATCH, n]),
    "huge and tiny": lambda n: RNG.choice([-3e38, -1e-37, 1e-37, 3e38], size=[BATCH, n]),
    "mostly dead": lambda n: np.where(RNG.random([BATCH, n]) < 0.99, -np.inf, 1.0),
    "not finite": lambda n: RNG.choice([np.nan, np.inf, -np.inf, 1.0, 2.0], size=[BATCH, n]),
    "all NaN": lambda n: np.full([BATCH, n], np.nan),
}


def expected_sets(values, k, live=None):
    """Index sets by the design: the dead last, equals and the dead by the lower index."""
    dead = ~np.isfinite(values) if live is None else ~(np.isfinite(values) & live)
    ranked = np.where(dead, -np.inf, values)
    return np.sort(np.argsort(-ranked, axis=-1, kind="stable")[:, :k], axis=-1)


@pytest.mark.parametrize(("n", "k"), SIZES)
@pytest.mark.parametrize("case", CASES)
def test_index_sets_are_exact(case, n, k):
    values = CASES[case](n).astype(np.float32)
    found, indices = top_k(values, k)
    expected = expected_sets(values, k)
    np.testing.assert_array_equal(np.sort(indices, axis=-1), expected)
    taken = np.take_along_axis(values, np.asarray(indices), axis=-1)
    np.testing.assert_array_equal(found, np.where(np.isfinite(taken), taken, -np.inf))


@pytest.mark.parametrize(("n", "k"), SIZES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5])
def test_the_dead_are_not_selected(n, k, share):
    values = RNG.integers(0, 50, size=[BATCH, n]).astype(np.float32)
    values[0, n // 2] = np.nan
    live = RNG.random(n) < share
    _, indices = top_k(jnp.asarray(values), k, live=jnp.asarray(live))
    np.testing.assert_array_equal(np.sort(indices, axis=-1), expected_sets(values, k, live))


@pytest.mark.parametrize(("n", "k"), [(1024, 30), (1025, 30), (40_000, 30)])
def test_denormals_are_zeros(n, k):
    values = (RNG.normal(size=[BATCH, n]) * 1e-39).astype(np.float32)
    _, indices = top_k(jnp.asarray(values), k)
    np.testing.assert_array_equal(np.sort(indices, axis=-1), np.tile(np.arange(k), [BATCH, 1]))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 99),
    k=st.sampled_from([1, 31, 32, 33, 1999, 2000]),
    distinct=st.integers(1, 60),
)
def test_any_ties(seed, k, distinct):
    values = np.random.default_rng(seed).integers(0, distinct, size=[2, 2000]).astype(np.float32)
    _, indices = top_k(jnp.asarray(values), k)
    np.testing.assert_array_equal(np.sort(indices, axis=-1), expected_sets(values, k))


def test_transforms_and_leading_dimensions():
    values = RNG.normal(size=[2, BATCH, 5000]).astype(np.float32)
    values[1, 1, 7] = np.nan
    expected = np.stack([expected_sets(rows, 20) for rows in values])
    for function in (
        lambda v: selection.top_k(v, 20),
        jax.vmap(lambda v: selection.top_k(v, 20)),
        lambda v: jax.lax.map(lambda row: selection.top_k(row, 20), v),
    ):
        np.testing.assert_array_equal(np.sort(jax.jit(function)(values)[1], axis=-1), expected)


def test_gradient_goes_to_the_selected():
    values = RNG.normal(size=[BATCH, 5000]).astype(np.float32)
    gradient = jax.grad(lambda v: top_k(v, 20)[0].sum())(values)
    expected = np.zeros_like(values)
    np.put_along_axis(expected, expected_sets(values, 20), 1.0, axis=-1)
    np.testing.assert_array_equal(gradient, expected)


def test_projection_over_many_anchors_matches_oracle():
    anchors = RNG.normal(size=[5000, 12]).astype(np.float32)
    embeddings = RNG.normal(size=[4, 12]).astype(np.float32)
    live = RNG.random(5000) < 0.8
    result = asif.project(embeddings, anchors, k=100, p=4.0, live=live)
    expected = oracle.dense_representation(embeddings, anchors, k=100, p=4.0, live=live)
    np.testing.assert_allclose(oracle.to_dense(result), expected, atol=2e-5)


def test_double_precision():
    with jax.enable_x64(True):
        values = jnp.asarray(RNG.normal(size=[BATCH, 3000]))
        _, indices = top_k(values, 30)
    np.testing.assert_array_equal(np.sort(indices, axis=-1), expected_sets(np.asarray(values), 30))
