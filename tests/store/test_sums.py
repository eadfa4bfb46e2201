"""Sums that a store keeps of its live pairs."""

import jax
import numpy as np
import pytest
import stores

from asif_jax import store
from asif_jax.methods import named
from asif_jax.store import Settings, StoreError, sums

FEWEST = 10


def filled(where, count=40, *, settings=None, **options):
    opened = stores.filled(where, count, **options)
    if settings is not None:
        store.change_settings(opened, settings)
    assert sums.write_sums(opened, fewest=FEWEST)
    return opened


def known(opened, version=None):
    found = store.snapshot(opened, version)
    return sums.known_sums(found, named(found.settings.method, found.settings.settings))


def assert_as_a_refit(opened):
    found = store.snapshot(opened)
    expected = store.load(opened.url)
    method = expected.method
    fresh = method.measure(store.open_anchors(found))
    kept = known(opened)
    assert kept is not None
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), kept, fresh)
    # The model that is loaded is fitted to them.
    jax.tree.map(np.testing.assert_array_equal, expected.sums, kept)
    refit = method.fit(expected.anchors, method.measure(expected.anchors))
    queries = stores.embeddings(5, 7)
    sides = [
        [method.represent(state, queries[m], m) for m in ("image", "text")]
        for state in (expected.state, refit)
    ]
    scores = [
        np.asarray(method.score(state, *both))
        for state, both in zip((expected.state, refit), sides, strict=True)
    ]
    np.testing.assert_allclose(*scores, atol=1e-4)


@pytest.mark.parametrize("block", [4, 1 << 14])
def test_they_follow_what_comes_and_goes(tmp_path, monkeypatch, block):
    monkeypatch.setattr(sums, "_ROWS", block)
    opened = filled(tmp_path / "store")
    assert_as_a_refit(opened)
    store.remove(opened, [0, 7, 39])
    assert_as_a_refit(opened)
    store.append(opened, stores.embeddings(6, 3), stores.pairs(6, "new"))
    store.remove(opened, [8, 44])
    assert_as_a_refit(opened)
    # Pairs without a negative entry may be compared by square roots; a mixture may not.
    assert known(opened, 1) is None


@pytest.mark.parametrize("block", [4, 1 << 14])
def test_features_without_negatives(tmp_path, monkeypatch, block):
    monkeypatch.setattr(sums, "_ROWS", block)
    opened = stores.create(tmp_path / "store")
    given = {m: np.abs(array) for m, array in stores.embeddings(30).items()}
    given["text"][20:] *= -1
    store.append(opened, given, stores.pairs(30))
    assert sums.write_sums(opened, fewest=FEWEST)
    assert_as_a_refit(opened)
    # An image with a negative entry changes how all are compared, so all are measured anew.
    store.append(opened, stores.embeddings(2, 3), stores.pairs(2, "new"))
    assert known(opened) is None
    assert store.load(tmp_path / "store").sums.negatives["image"] > 0


def test_only_where_they_help(tmp_path):
    opened = stores.filled(tmp_path / "store", 40)
    version = store.snapshot(opened).version
    assert not sums.write_sums(opened)
    assert not sums.write_sums(opened, fewest=41)
    assert store.snapshot(opened).version == version
    assert sums.write_sums(opened, fewest=40)
    # Nothing has changed since.
    assert not sums.write_sums(opened, fewest=40)
    store.change_settings(opened, Settings("cca"))
    assert known(opened) is None
    assert sums.write_sums(opened, fewest=40)
    store.remove(opened, range(30))
    assert known(opened) is None
    plain = stores.filled(tmp_path / "plain", 40)
    store.change_settings(plain, Settings("paper"))
    assert not sums.write_sums(plain, fewest=FEWEST)


def test_compaction_measures_them_anew(tmp_path):
    gone, never = filled(tmp_path / "gone"), stores.create(tmp_path / "never")
    store.remove(gone, [0, 3, 17])
    done = store.compact(gone, sums_from=FEWEST, progress=False)
    rows = [row for row in range(40) if row not in (0, 3, 17)]
    given = {m: array[rows] for m, array in stores.embeddings(40).items()}
    store.append(never, given, [stores.pairs(40)[row] for row in rows])
    assert sums.write_sums(never, fewest=FEWEST)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), known(done.store), known(never))
    assert store.snapshot(done.store).live.sum() == 37
    assert store.log(done.store)[0].message.startswith("compact: 37 pairs kept")


def test_damage_is_noticed(tmp_path):
    opened = filled(tmp_path / "store")
    content = bytearray(opened.kv.read("sums").result().value)
    content[len(content) // 2] ^= 1
    opened.kv.write("sums", bytes(content)).result()
    with pytest.raises(StoreError, match="the sums: damaged"):
        store.load(tmp_path / "store")
