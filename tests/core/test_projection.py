import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import asif_jax as asif
from asif_jax.core.cosine import cosine_similarities
from asif_jax.core.projection import power

BATCH, N, D = 6, 40, 8


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=[BATCH, D]).astype(np.float32)
    anchors = rng.normal(size=[N, D]).astype(np.float32)
    live = rng.random(N) < 0.7
    return embeddings, anchors, live


TRANSFORMS = {
    "eager": lambda f: lambda *args: _without_jit(f, *args),
    "jit": jax.jit,
    "vmap": lambda f: lambda x, *rest: jax.vmap(lambda row: f(row, *rest))(x),
    "scan": lambda f: lambda x, *rest: jax.lax.scan(lambda c, row: (c, f(row, *rest)), 0, x)[1],
}


def _without_jit(f, *args):
    with jax.disable_jit():
        return f(*args)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("k", "p"), [(1, 8.0), (7, 8.0), (7, 1.0), (N, 3.0)])
def test_matches_oracle(data, transform, signed, k, p):
    embeddings, anchors, live = data

    def project(x, a, mask):
        return asif.project(x, a, k=k, p=p, live=mask, signed=signed)

    result = TRANSFORMS[transform](project)(embeddings, anchors, jnp.asarray(live))
    assert result.values.dtype == jnp.float32
    assert result.indices.dtype == jnp.int32
    chex.assert_shape([result.values, result.indices], (BATCH, k))
    assert result.size == N
    expected = oracle.dense_representation(embeddings, anchors, k=k, p=p, live=live, signed=signed)
    np.testing.assert_allclose(oracle.to_dense(result), expected, atol=2e-6)


def test_bfloat16_matches_oracle_on_the_rounded_embeddings(data):
    embeddings, anchors, _ = data
    rounded = np.asarray(asif.normalize(embeddings).astype(jnp.bfloat16), np.float64)
    anchors = asif.normalize(anchors).astype(jnp.bfloat16)
    result = asif.project(embeddings, anchors, k=10, p=8.0, normalized=True)
    similarities = rounded @ np.asarray(anchors, np.float64).T
    expected = oracle.sparsify(similarities, k=10, p=8.0)
    assert result.values.dtype == jnp.float32
    np.testing.assert_allclose(oracle.to_dense(result), expected, atol=2e-6)


def test_bfloat16_anchors_are_normalized_too(data):
    embeddings, anchors, _ = data
    result = asif.project(embeddings, jnp.asarray(7 * anchors, jnp.bfloat16), k=10)
    expected = oracle.dense_representation(embeddings, anchors, k=10, p=8.0)
    agreement = np.sum(oracle.to_dense(result) * expected, axis=-1)
    assert agreement.min() > 0.99


def test_the_exponent_is_traced(data):
    embeddings, anchors, _ = data

    @jax.jit
    @chex.assert_max_traces(n=1)
    def sweep(p):
        return asif.project(embeddings, anchors, k=5, p=p).values

    for p in (1.0, 2.0, 8.0):
        expected = oracle.dense_representation(embeddings, anchors, k=5, p=p)
        top = -np.sort(-expected, axis=-1)[:, :5]
        np.testing.assert_allclose(-np.sort(-sweep(p), axis=-1), top, atol=2e-6)


def test_sharded_over_devices_equals_one_device(data):
    embeddings, anchors, live = data
    embeddings = np.tile(embeddings, [4, 1])
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    sharded = jax.device_put(embeddings, NamedSharding(mesh, PartitionSpec("data")))
    one, many = (asif.project(x, anchors, k=5, live=live) for x in (embeddings, sharded))
    np.testing.assert_array_equal(one.indices, many.indices)
    np.testing.assert_allclose(one.values, many.values, atol=1e-6)


@pytest.mark.parametrize("argument", ["embeddings", "anchors", "p"])
@pytest.mark.parametrize("signed", [False, True])
def test_gradient_matches_finite_differences(data, argument, signed):
    embeddings, anchors, live = data
    arguments = {"embeddings": embeddings[:2], "anchors": anchors, "p": np.float32(3.0)}
    weights = np.random.default_rng(1).normal(size=[2, N])

    def loss(x):
        given = arguments | {argument: x}
        r = asif.project(**given, k=6, live=live, signed=signed)
        picked = jnp.take_along_axis(jnp.asarray(weights, jnp.float32), r.indices, axis=-1)
        return jnp.sum(r.values * picked)

    def oracle_loss(x):
        given = arguments | {argument: x}
        r = oracle.dense_representation(**given, k=6, live=live, signed=signed)
        return np.sum(r * weights)

    point = np.asarray(arguments[argument], np.float64)
    direction = np.random.default_rng(2).normal(size=point.shape)
    step = 1e-6
    slope = (oracle_loss(point + step * direction) - oracle_loss(point - step * direction)) / (
        2 * step
    )
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(point, jnp.float32)), np.float64)
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-3, atol=1e-4)


def test_ties_go_to_the_lower_index():
    anchors = np.tile(np.eye(2, dtype=np.float32), [4, 1])
    result = asif.project([[1.0, 0.0], [1.0, 1.0]], anchors, k=3, p=2.0)
    assert result.indices.tolist() == [[0, 2, 4], [0, 1, 2]]


def test_one_anchor():
    result = asif.project([[2.0], [-1.0], [0.0]], [[3.0]], k=1)
    assert result.values.tolist() == [[1.0], [0.0], [0.0]]


def test_empty_batch():
    result = asif.project(jnp.zeros([0, D]), jnp.ones([N, D]), k=3)
    chex.assert_shape([result.values, result.indices], (0, 3))


def test_no_live_anchor_gives_zeros(data):
    embeddings, anchors, _ = data
    result = asif.project(embeddings, anchors, k=3, live=np.zeros(N, bool))
    assert not np.asarray(result.values).any()


def test_surplus_slots_are_zero_and_name_no_anchor_twice(data):
    embeddings, anchors, _ = data
    live = np.arange(N) < 2
    result = asif.project(embeddings, np.abs(anchors), k=5, live=live)
    assert (np.count_nonzero(result.values, axis=-1) <= 2).all()
    assert all(len(set(row)) == 5 for row in result.indices.tolist())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_row_poisons_no_other(data, bad):
    embeddings, anchors, _ = data
    clean = asif.project(embeddings, anchors, k=5)
    spoiled = embeddings.copy()
    spoiled[2, 3] = bad
    result = asif.project(spoiled, anchors, k=5)
    assert np.isnan(result.values[2]).all()
    others = np.arange(BATCH) != 2
    np.testing.assert_array_equal(result.values[others], clean.values[others])
    np.testing.assert_array_equal(result.indices[others], clean.indices[others])


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_anchor_is_never_selected(data, bad, normalized):
    embeddings, anchors, _ = data
    anchors = oracle.unit(anchors).astype(np.float32)
    spoiled = anchors.copy()
    spoiled[11] = bad
    live = np.arange(N) != 11
    expected = asif.project(embeddings, anchors, k=5, live=live, normalized=normalized)
    result = asif.project(embeddings, spoiled, k=5, normalized=normalized)
    np.testing.assert_array_equal(result.indices, expected.indices)
    np.testing.assert_array_equal(result.values, expected.values)


def test_large_powers_do_not_underflow(data):
    embeddings, anchors, _ = data
    result = asif.project(embeddings, anchors, k=5, p=400.0)
    np.testing.assert_allclose(np.linalg.norm(result.values, axis=-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1.0, 1e20, 1e37])
def test_normalize_survives_extreme_magnitudes(scale):
    result = asif.normalize(np.array([[3.0, -0.4], [0.0, 0.0]], np.float32) * np.float32(scale))
    expected = oracle.unit([[3.0, -0.4], [0.0, 0.0]])
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_gradient_at_zero_is_finite():
    for function in (asif.normalize, functools.partial(power, p=0.5)):
        gradient = jax.grad(lambda x, f=function: jnp.sum(f(x)))(jnp.zeros([2, 3]))
        assert np.isfinite(gradient).all()


finite = st.floats(-4, 4, width=16, allow_subnormal=False)


@settings(deadline=None, max_examples=40)
@given(
    similarities=hnp.arrays(np.float32, [3, 7], elements=finite),
    live=hnp.arrays(bool, [7]),
    k=st.sampled_from([1, 2, 6, 7]),
    p=st.sampled_from([0.5, 1.0, 8.0]),
    signed=st.booleans(),
)
def test_selection_property(similarities, live, k, p, signed):
    # Embeddings along the axes, so that the similarities are given and ties are exact.
    embeddings = np.eye(3, dtype=np.float32)
    anchors = similarities.T
    result = asif.project(embeddings, anchors, k=k, p=p, live=live, signed=signed, normalized=True)
    expected = oracle.sparsify(similarities, k=k, p=p, live=live, signed=signed)
    np.testing.assert_allclose(oracle.to_dense(result), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": np.ones([2, 3])}, r"\(2, 3\).*\(40, 8\)"),
        ({"anchors": np.ones([D])}, r"\(8,\)"),
        ({"k": 0}, "k=0, n=40"),
        ({"k": 41}, "k=41, n=40"),
        ({"live": np.ones(3, bool)}, r"\[40\] bool.*\(3,\)"),
        ({"live": np.ones(N)}, "float32"),
    ],
)
def test_shape_errors_name_the_shapes(data, arguments, message):
    embeddings, anchors, _ = data
    arguments = {"embeddings": embeddings, "anchors": anchors, "k": 5} | arguments
    with pytest.raises(ValueError, match=message):
        asif.project(**arguments)


def test_similarities_match_numpy(data):
    embeddings, anchors, _ = data
    expected = oracle.unit(embeddings) @ oracle.unit(anchors).T
    np.testing.assert_allclose(cosine_similarities(embeddings, anchors), expected, atol=1e-6)
