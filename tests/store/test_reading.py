import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stores
from jax.sharding import AxisType

from asif_jax import methods, store
from asif_jax.core import anchors
from asif_jax.model import create
from asif_jax.store import StoredPair, StoreError, reading

ON_MESH = {"anchors_axis": "pairs"}


def small(count=4, k=2, dtype="float32"):
    rng = np.random.default_rng(count)
    embeddings = {"image": rng.normal(size=[count, 3]), "text": rng.normal(size=[count, 2])}
    pairs = tuple(StoredPair(f"{i}.png", (f"Ding Nº {i} 犬", "zwei")) for i in range(count))
    encoders = {m: store.EncoderRecord(f"{m}-encoder", f"{m} 0123") for m in embeddings}
    method = methods.paper(k=k, p=4.0)
    return create(anchors.create(embeddings, dtype=dtype), pairs, encoders, method)


def rows_of(loaded):
    return stores.rows_of(loaded.anchors.embeddings, loaded.pairs)


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-7), ("bfloat16", 1e-2)])
def test_what_is_saved_is_loaded(tmp_path, dtype, atol):
    saved = small(dtype=dtype)
    store.save(tmp_path / "new" / "model", saved)
    loaded = store.load(tmp_path / "new" / "model")
    assert tuple(loaded.pairs) == saved.pairs
    assert loaded.encoders == saved.encoders
    assert loaded.method[-2:] == saved.method[-2:] == ("paper", {"k": 2, "p": 4.0})
    assert loaded.anchors.live.tolist() == [True] * 4
    for modality, array in saved.anchors.embeddings.items():
        assert loaded.anchors.embeddings[modality].dtype == dtype
        np.testing.assert_allclose(
            loaded.anchors.embeddings[modality].astype("float32"),
            array.astype("float32"),
            atol=atol,
        )


def test_nothing_is_saved_over_anything(tmp_path):
    store.save(tmp_path / "model", small())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    for where, message in (
        (tmp_path / "model", "there is a store already"),
        (tmp_path / "thesis", "holds other files"),
        (tmp_path / "thesis" / "thesis.tex", "is a file"),
    ):
        with pytest.raises(StoreError, match=message):
            store.save(where, small(5))
    assert len(store.load(tmp_path / "model").pairs) == 4
    assert list(stores.files(tmp_path / "thesis")) == ["thesis.tex"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_is_not_finite_is_not_saved(tmp_path, value):
    good = small()
    spoiled = {**good.anchors.embeddings}
    spoiled["image"] = spoiled["image"].at[1, 0].set(value)
    bad = good._replace(anchors=anchors.Anchors(spoiled, good.anchors.live))
    message = r"image embeddings.*NaN or infinity in 1 of 4 rows, the first being row 1"
    with pytest.raises(ValueError, match=message):
        store.save(tmp_path / "model", bad)
    with pytest.raises(StoreError, match=r"holds no pairs|is not a store"):
        store.load(tmp_path / "model")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"is not a store: it has no asif-store\.json"):
        store.load(tmp_path / "gone")
    with pytest.raises(StoreError, match="is not a store"):
        store.load(tmp_path)
    where = tmp_path / "model"
    store.save(where, small())
    truth = rows_of(store.load(where))
    (database,) = stores.databases(where)
    for path, message in (
        (where / "asif-store.json", r"is not a store: it has no asif-store\.json"),
        (where / database / "manifest.ocdbt", "its database is gone|is not there"),
        (where / database / "d", "damaged"),
        (where / database, "is not there"),
    ):
        path.rename(tmp_path / "away")
        with pytest.raises(StoreError, match=f"^{where}: .*({message})|^{where} ({message})"):
            store.load(where)
        if path.is_dir():
            shutil.rmtree(path)
        (tmp_path / "away").rename(path)
    assert rows_of(store.load(where)) == truth


def test_every_truncation_of_any_file_is_an_error(tmp_path):
    store.save(tmp_path / "model", small())
    truth = rows_of(store.load(tmp_path / "model"))
    refused = 0
    for path in stores.files(tmp_path / "model").values():
        content = path.read_bytes()
        for length in range(0, len(content), 7):
            path.write_bytes(content[:length])
            try:
                # The end of a file may belong to a former version alone.
                assert rows_of(store.load(tmp_path / "model")) == truth
            except StoreError as error:
                assert str(error).startswith(str(tmp_path / "model"))
                refused += 1
        path.write_bytes(content)
    assert refused > 100
    assert rows_of(store.load(tmp_path / "model")) == truth


@pytest.mark.parametrize("removed", [[], [0], [5], [0, 1, 5], [2, 3], [1, 2, 3, 4]])
def test_only_live_pairs_are_loaded(tmp_path, removed):
    opened = stores.filled(tmp_path / "store", count=6)
    store.remove(opened, removed)
    loaded = store.load(tmp_path / "store")
    rows = stores.expected_rows(stores.embeddings(6), stores.pairs(6))
    assert rows_of(loaded) == [row for index, row in enumerate(rows) if index not in removed]
    assert loaded.anchors.live.tolist() == [True] * (6 - len(removed))


def test_a_version_is_loaded_by_number_or_name(tmp_path):
    opened = stores.filled(tmp_path / "store", count=6)
    store.name_version(opened, 2, "full")
    store.remove(opened, range(5))
    sizes = {version: len(store.load(tmp_path / "store", version).pairs) for version in (2, "full")}
    assert sizes == {2: 6, "full": 6}
    assert len(store.load(tmp_path / "store").pairs) == 1
    with pytest.raises(StoreError, match="no version named 'empty'"):
        store.load(tmp_path / "store", "empty")
    with pytest.raises(StoreError, match="holds no pairs"):
        store.load(tmp_path / "store", 1)


def kept_and_power(loaded):
    """The k and p of a model of the paper's method."""
    found = loaded.represent(stores.embeddings(1)["image"], "image")
    return found.values.shape[-1], float(loaded.state.p)


def test_k_and_p_are_those_set_or_a_rule(tmp_path):
    opened = stores.filled(tmp_path / "store", count=12)
    assert store.load(tmp_path / "store").method.name == "two_cosines"
    store.change_settings(opened, store.Settings("paper"))
    assert kept_and_power(store.load(tmp_path / "store")) == (3, 4.0)
    store.change_settings(opened, store.Settings("paper", {"k": 10, "p": 2.5}))
    assert kept_and_power(store.load(tmp_path / "store")) == (10, 2.5)
    # There cannot be more than there are pairs.
    store.remove(opened, range(5))
    assert kept_and_power(store.load(tmp_path / "store")) == (7, 2.5)


def mesh_of(devices, axis_type=AxisType.Auto):
    return jax.make_mesh((devices,), ("pairs",), (axis_type,), devices=jax.devices()[:devices])


# Slabs of one row, of some, and of more than there are.
@pytest.mark.parametrize("slab", [1, 60, 1 << 20])
@pytest.mark.parametrize("mesh", [None, (1,), (8,), (3, AxisType.Explicit)])
@pytest.mark.parametrize(("dtype", "capacity"), [("float32", None), ("bfloat16", 50)])
def test_slots_are_rows(tmp_path, monkeypatch, slab, mesh, dtype, capacity):
    monkeypatch.setattr(reading, "_SLAB_BYTES", slab)
    opened = stores.filled(tmp_path / "store", count=21, dtype=dtype)
    store.remove(opened, [0, 7, 20])
    where = {} if mesh is None else {"mesh": mesh_of(*mesh), **ON_MESH}
    found = store.open_anchors(store.snapshot(opened), capacity=capacity, **where)
    devices = mesh[0] if mesh else 1
    slots = -(-(capacity or 21) // devices) * devices
    expected = anchors.create(stores.embeddings(21), dtype=dtype)
    expected = anchors.remove(anchors.grow(expected, capacity=slots), jnp.array([0, 7, 20]))
    chex.assert_trees_all_equal(found, expected)
    for array in jax.tree.leaves(found):
        assert len(array.sharding.device_set) == devices
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {slots // devices}


@pytest.mark.parametrize("mesh", [None, 8])
def test_an_empty_store_is_opened_with_free_slots(tmp_path, mesh):
    where = {} if mesh is None else {"mesh": mesh_of(mesh), **ON_MESH}
    found = store.open_anchors(store.snapshot(stores.create(tmp_path / "store")), **where)
    assert found.capacity == (mesh or 1)
    assert not found.live.any()
    assert not any(array.any() for array in found.embeddings.values())


def test_too_small_a_capacity_is_refused(tmp_path):
    found = store.snapshot(stores.filled(tmp_path / "store", count=6))
    with pytest.raises(ValueError, match="a capacity of 5 is too small for 6 rows"):
        store.open_anchors(found, capacity=5)
    assert store.open_anchors(found, capacity=6).capacity == 6


def test_a_damaged_chunk_is_refused(tmp_path):
    where = tmp_path / "store"
    row = store.snapshot(stores.filled(where, count=400, chunk=256)).arrays["text"][300]
    bits = row.read().result().tobytes()
    (path,) = (path for path in stores.files(where).values() if bits in path.read_bytes())
    content = bytearray(path.read_bytes())
    content[content.index(bits)] ^= 1
    path.write_bytes(content)
    found = store.snapshot(store.open_store(where))
    for options in ({}, {"mesh": mesh_of(8), **ON_MESH}):
        with pytest.raises(StoreError, match=f"^{where}: damaged"):
            store.open_anchors(found, **options)
    with pytest.raises(StoreError, match=f"^{where}: damaged"):
        store.load(where)


def test_a_loaded_model_stays_what_it_is(tmp_path):
    opened = stores.filled(tmp_path / "store", count=6)
    loaded = store.load(tmp_path / "store")
    store.replace(opened, [0, 1], stores.embeddings(3, 1), stores.pairs(3, "late"))
    assert rows_of(loaded) == stores.expected_rows(stores.embeddings(6), stores.pairs(6))


def test_saving_changes_no_bit_and_what_is_not_finite_leaves_nothing(tmp_path):
    rng = np.random.default_rng(0)
    embeddings = {m: rng.normal(size=[200, 7]) for m in ("image", "text")}
    encoders = {m: store.EncoderRecord(m, m) for m in embeddings}
    pairs = [store.StoredPair(f"{i}.png", ("A caption.",)) for i in range(200)]
    model = create(anchors.create(embeddings), pairs, encoders, methods.paper(k=5, p=2.0))
    store.save(tmp_path / "model", model)
    loaded = store.load(tmp_path / "model")
    for modality, array in model.anchors.embeddings.items():
        assert np.asarray(loaded.anchors.embeddings[modality]).tobytes() == array.tobytes()
    spoiled = {m: array.at[3, 1].set(np.nan) for m, array in model.anchors.embeddings.items()}
    bad = model._replace(anchors=model.anchors._replace(embeddings=spoiled))
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 200 rows"):
        store.save(tmp_path / "bad", bad)
    assert not (tmp_path / "bad").exists()
