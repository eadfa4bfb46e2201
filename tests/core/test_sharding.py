import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import two_hosts
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import asif_jax as asif

D, K = 16, 20
BOTH = {"anchors_axis": "pairs", "queries_axis": "queries"}


def mesh_of(pairs, queries, axis_type=AxisType.Auto):
    devices = jax.devices()[: pairs * queries]
    shape, names = (pairs, queries), ("pairs", "queries")
    return jax.make_mesh(shape, names, (axis_type,) * 2, devices=devices)


def data(n, batch, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(n + batch))
    embeddings = jax.random.normal(keys[0], [batch, D])
    anchors = asif.normalize(jax.random.normal(keys[1], [n, D])).astype(dtype)
    return embeddings, anchors, jnp.arange(n) % 3 != 0


def assert_same(actual, expected):
    np.testing.assert_array_equal(actual.indices, expected.indices)
    np.testing.assert_allclose(actual.values, expected.values, atol=1e-5)
    assert actual.size == expected.size


@pytest.mark.parametrize(("n", "dtype"), [(3000, "float32"), (3001, "bfloat16"), (20, "float32")])
@pytest.mark.parametrize("axes", [(8, 1), (4, 2), (1, 8), (4, 2, AxisType.Explicit)])
def test_projection_equals_that_of_one_device(axes, n, dtype):
    embeddings, anchors, live = data(n, 13, dtype)
    options = {"k": K, "normalized": True}
    mesh = mesh_of(*axes)
    for these in ({}, {"live": live}, {"live": live & (jnp.arange(n) < 9), "p": 2.0}):
        result = asif.sharding.project(embeddings, anchors, mesh=mesh, **BOTH, **options, **these)
        assert_same(result, asif.project(embeddings, anchors, **options, **these))


def test_projection_matches_oracle():
    embeddings, anchors, live = data(1000, 7)
    options = {"k": K, "p": 3.0, "live": live, "signed": True}
    mesh = mesh_of(8, 1)
    result = asif.sharding.project(embeddings, anchors, mesh=mesh, anchors_axis="pairs", **options)
    expected = oracle.dense_representation(embeddings, anchors, **options)
    np.testing.assert_allclose(oracle.to_dense(result), expected, atol=1e-5)


def test_ties_between_devices_go_to_the_lower_anchor():
    anchors = jnp.tile(jnp.eye(D)[:1], [64, 1])
    mesh = mesh_of(8, 1)
    result = asif.sharding.project(anchors[:2], anchors, mesh=mesh, anchors_axis="pairs", k=11)
    np.testing.assert_array_equal(result.indices, np.tile(np.arange(11), [2, 1]))


def test_bad_rows_stay_alone():
    embeddings, anchors, _ = data(500, 8)
    embeddings, anchors = embeddings.at[2].set(jnp.nan), anchors.at[77].set(jnp.inf)
    result = asif.sharding.project(embeddings, anchors, mesh=mesh_of(4, 2), **BOTH, k=K)
    assert np.isnan(result.values).any(axis=-1).tolist() == [row == 2 for row in range(8)]
    assert 77 not in np.asarray(result.indices)[[0, 1, *range(3, 8)]]


@pytest.mark.parametrize("memory", [2**30, 400_000])
def test_memory_holds_for_each_device(memory):
    embeddings, anchors, live = data(40_000, 16)
    mesh = mesh_of(4, 2)

    def project(embeddings, anchors, live):
        options = {"k": K, "live": live, "normalized": True, "memory": memory}
        return asif.sharding.project(embeddings, anchors, mesh=mesh, **BOTH, **options)

    on_pairs = NamedSharding(mesh, PartitionSpec("pairs"))
    placed = jax.device_put(anchors, on_pairs), jax.device_put(live, on_pairs)
    compiled = jax.jit(project).lower(embeddings, *placed).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= memory
    expected = asif.project(embeddings, anchors, k=K, live=live, normalized=True)
    assert_same(compiled(embeddings, *placed), expected)


def test_no_device_gathers_the_similarities():
    embeddings, anchors, live = data(40_000, 16)
    options = {"mesh": mesh_of(8, 1), "anchors_axis": "pairs", "k": K, "live": live}
    text = asif.sharding.project.lower(embeddings, anchors, **options).compile().as_text()
    gathered = [line for line in text.splitlines() if " all-gather(" in line]
    assert gathered
    assert all(f"[16,{8 * K}]" in line for line in gathered)


def test_under_jit_vmap_and_grad():
    embeddings, anchors, _ = data(1003, 12)
    mesh = mesh_of(4, 2)

    def sharded(x, a):
        return asif.sharding.project(x, a, mesh=mesh, **BOTH, k=K, p=2.0).values

    def single(x, a):
        return asif.project(x, a, k=K, p=2.0).values

    batches = embeddings.reshape(3, 4, D)
    vmapped = jax.jit(jax.vmap(sharded, in_axes=(0, None)))(batches, anchors)
    np.testing.assert_allclose(vmapped, single(batches, anchors), atol=1e-5)
    gradients = [
        jax.jit(jax.grad(lambda x, a, f=f: (f(x, a) ** 3).sum(), argnums=(0, 1)))(
            embeddings, anchors
        )
        for f in (sharded, single)
    ]
    for actual, expected in zip(*gradients, strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("sizes", [(16, 32), (13, 29)])
def test_similarity_equals_that_of_one_device(sizes, axis_type):
    embeddings, anchors, _ = data(1000, sum(sizes))
    both = asif.project(embeddings, anchors, k=K)
    queries, gallery = both[: sizes[0]], both[sizes[0] :]
    options = {"queries_axis": "queries", "gallery_axis": "pairs"}
    scores = asif.sharding.similarity(queries, gallery, mesh=mesh_of(4, 2, axis_type), **options)
    np.testing.assert_allclose(scores, asif.similarity(queries, gallery), atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("capacity", [None, 150])
def test_a_placed_model_equals_a_created_one(dtype, capacity):
    rng = np.random.default_rng(0)
    arrays = {"image": rng.normal(size=[101, 8]), "text": rng.normal(size=[101, 5])}
    arrays["text"] = arrays["text"].astype(np.float16)
    asked = []

    def read(start, stop):
        asked.append((start, stop))
        return arrays["text"][start:stop]

    sources = {"image": arrays["image"], "text": asif.sharding.Rows((101, 5), read)}
    options = {"capacity": capacity, "dtype": dtype}
    mesh = mesh_of(8, 1)
    model = asif.sharding.place(sources, mesh=mesh, anchors_axis="pairs", **options)
    expected = asif.anchors.create(arrays, **options)
    rows = model.capacity // 8
    assert model.capacity == {None: 104, 150: 152}[capacity]
    assert max(stop - start for start, stop in asked) == rows
    expected = asif.anchors.grow(expected, capacity=model.capacity)
    chex.assert_trees_all_equal(model, expected)
    for array in jax.tree.leaves(model):
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {rows}


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_a_placed_model_is_edited_where_it_lies(axis_type):
    rng = np.random.default_rng(1)
    arrays = {"image": rng.normal(size=[60, 8]), "text": rng.normal(size=[60, 5])}
    more = {"image": rng.normal(size=[6, 8]), "text": rng.normal(size=[6, 5])}
    queries = rng.normal(size=[4, 5])
    mesh = mesh_of(8, 1, axis_type)
    placed = asif.sharding.place(arrays, mesh=mesh, anchors_axis="pairs", capacity=72)
    options = {"modality": "text", "k": 10}
    on_mesh = {"mesh": mesh, "anchors_axis": "pairs"}
    results, edited = [], []
    for model, represent in (
        (placed, lambda *x: asif.sharding.represent(*x, **on_mesh, **options)),
        (asif.anchors.create(arrays, capacity=72), lambda *x: asif.represent(*x, **options)),
    ):
        before = represent(queries, model)
        model, slots = asif.anchors.insert(model, more)
        during = represent(queries, model)
        after = represent(queries, asif.anchors.remove(model, slots))
        np.testing.assert_array_equal(before.values, after.values)
        edited.append(model)
        results.append((before, during))
    for actual, expected in zip(*results, strict=True):
        assert_same(actual, expected)
    chex.assert_trees_all_equal(*edited)
    for array in jax.tree.leaves(edited[0]):
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {9}


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({}, {}, "each modality"),
        ({"image": np.ones([4, 2])}, {"capacity": 3}, "capacity of 3 is too small for 4"),
        ({"image": np.ones([4, 2]), "text": np.ones([3, 2])}, {}, "same number of pairs"),
        ({"image": np.array([[1.0]] * 5 + [[np.nan]])}, {}, "first being row 5"),
        ({"image": asif.sharding.Rows((4, 2), lambda a, b: np.ones([b, 3]))}, {}, "width 2"),
        ({"image": np.ones([4, 2])}, {"anchors_axis": "hosts"}, "no axis 'hosts'"),
    ],
)
def test_bad_pairs_are_refused(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        asif.sharding.place(arrays, **{"mesh": mesh_of(2, 1), "anchors_axis": "pairs"} | options)


def test_bad_queries_are_refused():
    options = {"mesh": mesh_of(2, 1), "anchors_axis": "pairs"}
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        asif.sharding.project(np.ones([2, 3, 4]), np.ones([9, 4]), **options, k=2)
    with pytest.raises(ValueError, match="k must lie between"):
        asif.sharding.project(np.ones([2, 4]), np.ones([9, 4]), **options, k=10)
    with pytest.raises(ValueError, match="no axis 'rows'"):
        asif.sharding.project(np.ones([2, 4]), np.ones([9, 4]), **options, k=1, queries_axis="rows")


def test_two_processes_equal_one(tmp_path):
    """Two hosts with four devices each, talking through gloo, against this single process."""
    embeddings, anchors, _ = data(3001, 13)
    np.save(tmp_path / "embeddings.npy", embeddings)
    np.save(tmp_path / "anchors.npy", anchors)
    two_hosts.run("two_processes.py", tmp_path)
    expected = asif.project(embeddings, anchors, k=K)
    live = jnp.ones(3001, bool).at[expected.indices[0]].set(False)
    fewer = asif.project(embeddings, anchors, k=K, live=live)
    for index in range(2):
        found = np.load(tmp_path / f"{index}.npz")
        np.testing.assert_array_equal(found["indices"], expected.indices)
        np.testing.assert_array_equal(found["indices_after_removal"], fewer.indices)
        np.testing.assert_allclose(found["values"], expected.values, atol=1e-5)
        np.testing.assert_allclose(found["scores"], asif.similarity(expected, expected), atol=1e-5)
        # Each host read its own half of the rows, and only that.
        read = json.loads((tmp_path / f"{index}.json").read_text())
        assert sorted(read) == [
            [start, min(start + 376, 3001)]
            for start in range(index * 1504, index * 1504 + 1504, 376)
        ]
