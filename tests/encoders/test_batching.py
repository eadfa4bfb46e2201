import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from asif_jax.encoders import Encoder, microbatched, sharded

WIDTH = 64


def wide_apply(params, batch):
    """Needs WIDTH squared floats a row, and reads two arrays."""
    outer = jnp.sin(batch["x"][:, :, None] * params + batch["y"][:, None])
    return jnp.stack([outer.sum(axis=(1, 2)), jnp.sort(outer.max(axis=1))[:, 0]], axis=1)


@pytest.fixture(scope="module")
def encoder():
    params = jnp.linspace(0.5, 2.0, WIDTH)
    return Encoder(wide_apply, params, list, modality="text", name="x", dimension=2, identity="x")


def batch_of(count):
    rng = np.random.default_rng(count)
    return {key: rng.normal(size=[count, WIDTH]).astype(np.float32) for key in ("x", "y")}


def temporary_bytes(encoder, batch):
    compiled = jax.jit(encoder.apply).lower(encoder.params, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def assert_same(result, encoder, batch):
    expected = jax.jit(encoder.apply)(encoder.params, batch)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("memory", [10**8, 150_000, 60_000])
@pytest.mark.parametrize("count", [1, 21, 64])
def test_microbatches_stay_within_memory(encoder, count, memory):
    batch = batch_of(count)
    small = microbatched(encoder, memory=memory)
    assert temporary_bytes(small, batch) <= memory
    assert_same(jax.jit(small.apply)(small.params, batch), encoder, batch)


def test_microbatches_are_needed_here(encoder):
    assert temporary_bytes(encoder, batch_of(64)) > 150_000


def test_too_little_memory_is_an_error(encoder):
    with pytest.raises(ValueError, match=r"one row needs \d+ bytes, more than memory=1000$"):
        microbatched(encoder, memory=1000).apply(encoder.params, batch_of(64))


def test_microbatches_have_slopes(encoder):
    batch = batch_of(21)
    small = microbatched(encoder, memory=150_000)
    slopes = [
        jax.jit(jax.grad(lambda b, e=e: jnp.sum(e.apply(e.params, b)[:, 0])))(batch)
        for e in (small, encoder)
    ]
    np.testing.assert_allclose(slopes[0]["x"], slopes[1]["x"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("count", [1, 5, 8])
def test_batches_are_split_over_devices(encoder, count, kind):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
    spread = sharded(encoder, mesh=mesh, axis="data")
    assert spread.params.sharding.is_fully_replicated
    assert spread.params.sharding.device_set == set(mesh.devices.flat)
    batch = batch_of(count)
    result = jax.jit(spread.apply)(spread.params, batch)
    assert_same(result, encoder, batch)
    assert_same(spread.apply(spread.params, batch), encoder, batch)
    if count % 4 == 0:
        assert result.sharding.spec[0] == "data"


def test_both_combine(encoder):
    mesh = jax.make_mesh((4,), ("data",))
    batch = batch_of(30)
    both = sharded(microbatched(encoder, memory=60_000), mesh=mesh, axis="data")
    assert_same(jax.jit(both.apply)(both.params, batch), encoder, batch)
    assert temporary_bytes(both, batch) < temporary_bytes(
        sharded(encoder, mesh=mesh, axis="data"), batch
    )


def test_an_unknown_axis_is_named(encoder):
    with pytest.raises(ValueError, match="no axis 'rows' in the mesh"):
        sharded(encoder, mesh=jax.make_mesh((2,), ("data",)), axis="rows")
