import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from asif_jax.core import anchors, in_place

CAPACITY = 2080
DIMENSIONS = {"image": 3, "text": 5}


def random(count, seed):
    rng = np.random.default_rng([count, seed])
    return {m: rng.normal(size=[count, d]).astype(np.float32) for m, d in DIMENSIONS.items()}


def units(given, dtype):
    """Embeddings as a model keeps them, on the host."""
    return jax.tree.map(np.asarray, dict(anchors.create(given, dtype=dtype).embeddings))


def split(model, devices, axis_type):
    mesh = jax.make_mesh((devices,), ("pairs",), (axis_type,), devices=jax.devices()[:devices])
    return jax.device_put(model, NamedSharding(mesh, PartitionSpec("pairs")))


WHERE = {
    "one device": lambda model: model,
    "8 devices": lambda model: split(model, 8, AxisType.Auto),
    "8 devices, explicit": lambda model: split(model, 8, AxisType.Explicit),
    # Nothing is split, but the sharding is of a mesh.
    "on every device": lambda model: jax.device_put(
        model, NamedSharding(jax.make_mesh((8,), ("pairs",)), PartitionSpec())
    ),
}

everywhere = pytest.mark.parametrize("where", WHERE)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


@functools.cache
def former(dtype):
    """A model some of whose slots are free."""
    return anchors.remove(anchors.create(random(CAPACITY, 0), dtype=dtype), np.arange(0, 99, 7))


def model(dtype, where):
    """A copy: what is edited in place is used up."""
    return WHERE[where](jax.tree.map(jnp.copy, former(dtype)))


def assert_same(found, expected):
    assert found.embeddings.keys() == expected.embeddings.keys()
    for actual, array in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert actual.dtype == array.dtype
        assert np.asarray(actual).tobytes() == np.asarray(array).tobytes()


# A device of eight holds 260 slots; a block holds 1024, or as many as a device.
SPANS = [
    (0, 1),
    (0, 0),
    (CAPACITY, 0),
    (CAPACITY - 1, 1),
    (259, 2),
    (255, 9),
    (100, 260),
    (3, 1024),
    (CAPACITY - 1025, 1025),
    (0, CAPACITY),
    (1, CAPACITY - 2),
]


@everywhere
@every_dtype
def test_overwriting_equals_replacing(where, dtype):
    for first, count in SPANS:
        given = random(count, first + 1)
        found = model(dtype, where)
        shardings = jax.tree.map(lambda array: array.sharding, found)
        values = units(given, dtype) if count else given
        found = in_place.overwrite(found, first, values, np.ones(count, bool))
        expected = anchors.replace(former(dtype), np.arange(first, first + count), given)
        assert_same(found, expected)
        for array, sharding in zip(*map(jax.tree.leaves, (found, shardings)), strict=True):
            assert array.sharding.is_equivalent_to(sharding, array.ndim)


@everywhere
def test_some_of_what_is_written_is_not_live(where):
    live = np.arange(1500) % 3 != 0
    values = units(random(1500, 1), "float32")
    found = in_place.overwrite(model("float32", where), 300, values, live)
    expected = anchors.replace(former("float32"), np.arange(300, 1800), random(1500, 1))
    expected = anchors.remove(expected, 300 + np.flatnonzero(~live))
    assert_same(found, expected)


@everywhere
@pytest.mark.parametrize("first", [-1, CAPACITY - 8, CAPACITY + 1])
def test_slots_that_do_not_exist_are_refused(where, first):
    found = model("float32", where)
    values = units(random(9, 1), "float32")
    with pytest.raises(ValueError, match=f"slots {first} to {first + 8} are not among {CAPACITY}"):
        in_place.overwrite(found, first, values, np.ones(9, bool))
    assert_same(found, former("float32"))


@everywhere
@every_dtype
def test_clearing_equals_removing(where, dtype):
    rng = np.random.default_rng(0)
    for slots in (
        [],
        [0],
        [CAPACITY - 1, 5, 5],
        [-1, CAPACITY, CAPACITY + 7, 259, 260],
        rng.choice(CAPACITY, 1024, replace=False),
        rng.choice(CAPACITY, 1025, replace=False),
        np.arange(CAPACITY),
    ):
        found = in_place.clear(model(dtype, where), slots)
        assert_same(found, anchors.remove(former(dtype), np.asarray(slots, int)))
        assert found.live.sharding.is_equivalent_to(model(dtype, where).live.sharding, 1)


@everywhere
@every_dtype
def test_one_program_serves_every_edit(where, dtype):
    jax.clear_caches()
    values = units(random(CAPACITY, 1), dtype)

    def edit(found, first, count):
        rows = {m: a[:count] for m, a in values.items()}
        return in_place.clear(
            in_place.overwrite(found, first, rows, np.ones(count, bool)), range(first, count)
        )

    found = edit(model(dtype, where), 0, 1)
    compiled = []

    def listen(event, duration, **_):
        if "compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for first, count in SPANS:
            found = edit(found, first, count)
        assert compiled == []
        # The listener hears what is compiled.
        jax.jit(lambda array: array * 7 + len(SPANS))(found.live).block_until_ready()
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def pointers(found):
    return [
        shard.data.unsafe_buffer_pointer()
        for array in jax.tree.leaves(found)
        for shard in array.addressable_shards
    ]


@everywhere
@every_dtype
def test_the_memory_of_the_former_model_is_used(where, dtype):
    found = jax.block_until_ready(model(dtype, where))
    before = pointers(found)
    for first, count in SPANS:
        values = units(random(count, 1), dtype) if count else random(0, 1)
        latter = in_place.overwrite(found, first, values, np.ones(count, bool))
        latter = in_place.clear(latter, [first, first + 1])
        assert pointers(jax.block_until_ready(latter)) == before
        # As far as there was something to write, the former one is used up.
        assert found.live.is_deleted()
        assert all(array.is_deleted() == (count > 0) for array in found.embeddings.values())
        found = latter


@every_dtype
def test_rows_are_placed_in_an_array(dtype):
    rng = np.random.default_rng(0)
    expected = rng.normal(size=[50, 4]).astype(dtype)
    array = jnp.array(expected)
    before = array.unsafe_buffer_pointer()
    for first, count in ((0, 1), (49, 1), (7, 20), (30, 20), (0, 50)):
        rows = rng.normal(size=[count, 4]).astype(dtype)
        expected[first : first + count] = rows
        array = in_place.place_slab(array, first, rows).block_until_ready()
        assert np.asarray(array).tobytes() == expected.tobytes()
        assert array.unsafe_buffer_pointer() == before
