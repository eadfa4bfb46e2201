import jax
import numpy as np
import pytest
import stores
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType

from asif_jax import store
from asif_jax.jobs import serving as live
from asif_jax.store import StoreError

CAPACITY = 48


def mesh_of(axis_type):
    return jax.make_mesh((8,), ("pairs",), (axis_type,))


WHERE = {
    "one device": dict,
    "8 devices": lambda: {"mesh": mesh_of(AxisType.Auto), "anchors_axis": "pairs"},
    "8 devices, explicit": lambda: {"mesh": mesh_of(AxisType.Explicit), "anchors_axis": "pairs"},
}
everywhere = pytest.mark.parametrize("where", WHERE)


def opened_anchors(opened, where, version=None):
    found = store.snapshot(opened, version)
    return store.open_anchors(found, capacity=CAPACITY, **WHERE[where]())


def assert_same(model, opened, version=None):
    """The live slots of a model are those of a store, bit for bit."""
    expected = opened_anchors(opened, "one device", version)
    rows = np.asarray(expected.live)
    np.testing.assert_array_equal(model.live, rows)
    for modality, array in expected.embeddings.items():
        assert model.embeddings[modality].dtype == array.dtype
        actual = np.asarray(model.embeddings[modality])[rows]
        assert actual.tobytes() == np.asarray(array)[rows].tobytes()


def edit(opened, model, kind, seed):
    """A random change of a store and of the model that serves from it."""
    rng = np.random.default_rng(seed)
    live_rows = np.flatnonzero(model.live)
    rows = rng.choice(live_rows, min(len(live_rows), rng.integers(1, 9)), replace=False)
    count = int(rng.integers(1, 6))
    first = store.row_count(opened)
    new = stores.embeddings(count, seed), stores.pairs(count, f"{seed}")
    if kind == "insert":
        model, slots = live.insert(opened, model, *new)
        assert slots == range(first, first + count)
    elif kind == "replace":
        model, slots = live.replace(opened, model, rows, *new)
        assert slots == range(first, first + count)
    elif kind == "remove":
        model = live.remove(opened, model, rows)
    return model


EDITS = st.lists(
    st.tuples(st.sampled_from(["insert", "remove", "replace"]), st.integers(0, 9)), max_size=8
)


@settings(deadline=None, max_examples=8)
@given(EDITS, st.sampled_from(sorted(WHERE)), st.sampled_from(["float32", "bfloat16"]))
def test_a_model_and_its_store_stay_equal(tmp_path_factory, edits, where, dtype):
    opened = stores.filled(tmp_path_factory.mktemp("store"), dtype=dtype)
    model = opened_anchors(opened, where)
    for kind, seed in edits:
        model = edit(opened, model, kind, seed)
        assert_same(model, opened)
    assert_same(model, store.open_store(opened.url))


@settings(deadline=None, max_examples=10)
@given(EDITS, st.sampled_from(sorted(WHERE)), st.integers(0, 9), st.integers(0, 9))
def test_a_model_follows_its_store(tmp_path_factory, edits, where, former, latter):
    opened = stores.filled(tmp_path_factory.mktemp("store"))
    other = store.open_store(opened.url)
    model = opened_anchors(other, "one device")
    for kind, seed in edits:
        model = edit(other, model, kind, seed)
    newest = store.snapshot(opened).version
    former, latter = (1 + number % newest for number in (former, latter))
    # To a version that may be older, and on to the newest.
    model, version = live.update(opened, opened_anchors(opened, where, former), former, latter)
    assert version == latter
    assert_same(model, opened, latter)
    model, version = live.update(opened, model, latter)
    assert version == newest
    assert_same(model, opened)


@everywhere
def test_long_runs_of_new_rows_are_read_in_pieces(tmp_path, monkeypatch, where):
    monkeypatch.setattr(live, "_ROWS", 3)
    opened = stores.filled(tmp_path / "store")
    model = opened_anchors(opened, where)
    store.append(opened, stores.embeddings(31), stores.pairs(31))
    store.remove(opened, [0, 9, 20, 21, 36])
    model, version = live.update(opened, model, 2)
    assert version == 4
    assert_same(model, opened)


def test_a_compacted_store_is_not_followed(tmp_path):
    opened = stores.filled(tmp_path / "store")
    model = opened_anchors(opened, "one device")
    store.remove(opened, [0])
    compacted = store.compact(store.open_store(tmp_path / "store"), progress=False).store
    for handle in (opened, compacted):
        with pytest.raises(StoreError, match=r"open it anew|has versions"):
            live.update(handle, model, 2)
    assert model.live.sum() == 6


TOO_MANY = stores.embeddings(43), stores.pairs(43)
FITTING = stores.embeddings(2), stores.pairs(2)
NOT_FINITE = {m: a * np.nan for m, a in FITTING[0].items()}


@everywhere
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, m: live.insert(s, m, *TOO_MANY), "43 pairs do not fit into the 42 slots"),
        (lambda s, m: live.replace(s, m, [0], *TOO_MANY), "43 pairs do not fit into the 42 slots"),
        (lambda s, m: live.insert(s, m, NOT_FINITE, FITTING[1]), "NaN or infinity"),
        (lambda s, m: live.insert(s, m, FITTING[0], FITTING[1][:1]), "takes embeddings of shapes"),
        (lambda s, m: live.remove(s, m, [1, 6]), "no row 6 among 6"),
        (lambda s, m: live.remove(s, m, [-1]), "no row -1 among 6"),
        (lambda s, m: live.remove(s, m, [0, 2]), "row 2 holds no pair any more"),
        (lambda s, m: live.replace(s, m, [2], *FITTING), "row 2 holds no pair any more"),
        (lambda s, m: live.remove(s, m, [0.5]), "rows must be integers"),
    ],
)
def test_what_is_refused_leaves_model_and_store(tmp_path, where, change, message):
    opened = stores.filled(tmp_path / "store")
    store.remove(opened, [2])
    model, before = opened_anchors(opened, where), stores.newest(opened)
    with pytest.raises(ValueError, match=message):
        change(opened, model)
    assert stores.newest(opened) == before
    assert_same(model, opened)
    # The model can still be used, to the last slot.
    model, slots = live.insert(opened, model, stores.embeddings(42), stores.pairs(42))
    assert slots == range(6, 48)
    assert_same(model, opened)


@everywhere
def test_a_model_that_is_too_small_does_not_follow(tmp_path, where):
    opened = stores.filled(tmp_path / "store")
    model = opened_anchors(opened, where)
    store.append(opened, *TOO_MANY)
    with pytest.raises(ValueError, match="49 rows do not fit into 48 slots"):
        live.update(opened, model, 2)
    assert_same(model, opened, 2)


def test_a_store_that_is_full_leaves_the_model(tmp_path, monkeypatch):
    from asif_jax.store import commits

    def fail(*arguments, **options):
        raise OSError("No space left on device")

    opened = stores.filled(tmp_path / "store")
    model, before = opened_anchors(opened, "one device"), stores.newest(opened)
    monkeypatch.setattr(commits, "write_log", fail)
    for change in (
        lambda: live.insert(opened, model, *FITTING),
        lambda: live.remove(opened, model, [1]),
        lambda: live.replace(opened, model, [1], *FITTING),
    ):
        with pytest.raises(StoreError, match="the disk is full; nothing of this was kept"):
            change()
    assert stores.newest(opened) == before
    assert_same(model, opened)


def test_the_next_query_sees_an_edit(tmp_path):
    from asif_jax import represent

    opened = stores.filled(tmp_path / "store")
    model = opened_anchors(opened, "one device")
    given = stores.embeddings(3, 9)

    def best(model):
        found = represent(given["image"][1], model, modality="image", k=1)
        return int(found.indices[0])

    assert best(model) < 6
    model, slots = live.insert(opened, model, given, stores.pairs(3, "new"))
    assert best(model) == slots[1] == 7
    model = live.remove(opened, model, [7])
    assert best(model) != 7
