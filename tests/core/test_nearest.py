import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import asif_jax as asif
from asif_jax.core.nearest import DEFAULT_MEMORY, nearest_anchors

N, D, K = 6000, 8, 20
# From all at once, to a few queries at a time, to blocks of anchors.
MEMORY = [DEFAULT_MEMORY, 2_000_000, 1_200_000, 900_000, 700_000]


@pytest.fixture(scope="module")
def data():
    """Embeddings and anchors whose products are exact, so that ties are ties in any order."""
    rng = np.random.default_rng(0)
    embeddings = np.eye(D, dtype=np.float32)[rng.integers(0, D, size=70)]
    anchors = rng.integers(-40, 40, size=[N, D]).astype(np.float32) / 64
    live = rng.random(N) < 0.7
    return embeddings, anchors, live


def expected_sets(embeddings, anchors, k, live):
    similarities = np.where(live, embeddings @ anchors.T, -np.inf)
    return np.sort(np.argsort(-similarities, axis=-1, kind="stable")[:, :k], axis=-1)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("share", [1.0, 0.7, 0.001])
@pytest.mark.parametrize("k", [1, K, 900])
def test_the_sets_do_not_depend_on_memory(data, memory, share, k):
    embeddings, anchors, _ = data
    if k == 900 and memory < 10_000_000:
        memory *= 20
    live = np.random.default_rng(1).random(N) < share
    find = jax.jit(functools.partial(nearest_anchors, k=k, normalized=True, memory=memory))
    values, indices = find(embeddings, anchors, live=live)
    expected = expected_sets(embeddings, anchors, k, live)
    np.testing.assert_array_equal(indices, expected)
    taken = np.take_along_axis(embeddings @ anchors.T, expected, axis=-1)
    np.testing.assert_array_equal(values, np.where(live[expected], taken, -np.inf))


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("normalized", [True, False])
def test_what_is_reserved_stays_within_memory(memory, dtype, normalized):
    embeddings, anchors = jnp.ones([70, D]), jnp.ones([N, D], dtype)
    project = functools.partial(asif.project, k=K, normalized=normalized, memory=memory)
    compiled = jax.jit(project).lower(embeddings, anchors).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= memory


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("normalized", [True, False])
def test_projection_within_memory_matches_oracle(memory, normalized):
    rng = np.random.default_rng(2)
    embeddings, anchors = rng.normal(size=[70, D]), rng.normal(size=[N, D])
    anchors /= np.linalg.norm(anchors, axis=-1, keepdims=True)
    live = rng.random(N) < 0.9
    options = {"k": K, "live": live, "normalized": normalized, "memory": memory}
    result = asif.project(embeddings, anchors, **options)
    expected = oracle.dense_representation(embeddings, anchors, k=K, p=8.0, live=live)
    np.testing.assert_allclose(oracle.to_dense(result), expected, atol=2e-5)


@pytest.mark.parametrize("memory", [1_200_000, 700_000])
def test_transforms_within_memory(data, memory):
    _, anchors, live = data
    embeddings = jax.random.normal(jax.random.key(0), [3, 20, D])

    def values(embeddings, memory=memory):
        options = {"k": K, "live": live, "normalized": True, "memory": memory}
        return asif.project(embeddings, anchors, **options).values

    expected = values(embeddings, DEFAULT_MEMORY)
    np.testing.assert_allclose(jax.vmap(values)(embeddings), expected, atol=1e-5)
    gradient = jax.grad(lambda x: (values(x) ** 3).sum())(embeddings)
    reference = jax.grad(lambda x: (values(x, DEFAULT_MEMORY) ** 3).sum())(embeddings)
    np.testing.assert_allclose(gradient, reference, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("memory", [1_200_000, 700_000])
def test_gradients_of_the_anchors_within_memory(memory, dtype):
    embeddings = jax.random.normal(jax.random.key(0), [70, D])
    anchors = jax.random.normal(jax.random.key(1), [N, D], dtype) / 3

    def loss(anchors, memory):
        result = asif.project(embeddings, anchors, k=K, normalized=True, memory=memory)
        return (result.values**3).sum()

    gradient = jax.grad(loss)(anchors, memory).astype(jnp.float32)
    reference = jax.grad(loss)(anchors, DEFAULT_MEMORY).astype(jnp.float32)
    assert np.abs(reference).max() > 0.01
    np.testing.assert_allclose(gradient, reference, atol=2e-2 * np.abs(reference).max())


def test_too_little_memory_is_refused():
    with pytest.raises(ValueError, match=r"memory=1000 bytes cannot hold .* at least \d+"):
        nearest_anchors(np.ones([2, 3]), np.ones([5000, 3]), 50, memory=1000)


def test_an_empty_batch():
    values, indices = nearest_anchors(np.zeros([0, 3]), np.ones([50, 3]), 5)
    chex.assert_shape([values, indices], (0, 5))
