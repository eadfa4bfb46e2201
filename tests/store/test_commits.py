import dataclasses
import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import stores
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_jax import store
from asif_jax.store import Settings, StoredPair, StoreError, commits
from asif_jax.store.commits import append_rows, commit, remove_rows, unit_rows
from asif_jax.store.database import open_arrays
from asif_jax.store.jobs import start_job

_HELPERS = Path(__file__).parents[1] / "helpers"


@dataclasses.dataclass
class Oracle:
    """What a store must hold: all versions, as plain dictionaries."""

    versions: dict
    rows: int = 0

    @property
    def newest(self):
        return self.versions[max(self.versions)]

    def land(self, *, removed=(), added=()):
        kept = {row: pair for row, pair in self.newest.items() if row not in removed}
        new = dict(enumerate(added, start=self.rows))
        self.rows += len(added)
        self.versions[max(self.versions) + 1] = kept | new


def edit(opened, oracle, kind, seed, dtype):
    """One random change of a store, and of the oracle."""
    rng = np.random.default_rng(seed)
    live = sorted(oracle.newest)
    chosen = rng.choice(live, rng.integers(1, len(live) + 1), replace=False) if live else ()
    count = int(rng.integers(1, 7))
    given, pairs = stores.embeddings(count, seed), stores.pairs(count, f"{seed}")
    added = stores.expected_rows(given, pairs, dtype)
    if kind == "append":
        assert store.append(opened, given, pairs) == range(oracle.rows, oracle.rows + count)
        oracle.land(added=added)
    elif kind == "remove" and len(chosen):
        store.remove(opened, chosen)
        oracle.land(removed=chosen)
    elif kind == "replace":
        new = store.replace(opened, chosen, given, pairs)
        assert new == range(oracle.rows, oracle.rows + count)
        oracle.land(removed=chosen, added=added)
    elif kind == "settings":
        store.change_settings(opened, Settings("paper", {"k": seed}))
        oracle.land()
        assert store.snapshot(opened).settings == Settings("paper", {"k": seed})
    elif kind == "name":
        store.name_version(opened, max(oracle.versions), "here")
        assert store.snapshot(opened, "here").version == max(oracle.versions)
        oracle.land()


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "append", "remove", "replace", "settings", "name"]),
            st.integers(0, 9),
        ),
        max_size=9,
    ),
    st.sampled_from([("float32", 4), ("bfloat16", 4), ("float32", 16)]),
)
def test_every_version_is_what_the_edits_made_it(tmp_path_factory, edits, kind):
    dtype, chunk = kind
    where = tmp_path_factory.mktemp("store")
    opened = stores.create(where, dtype=dtype, chunk=chunk)
    oracle = Oracle({1: {}})
    for change, seed in edits:
        edit(opened, oracle, change, seed, dtype)
        assert stores.newest(opened) == (max(oracle.versions), oracle.newest)
    assert store.row_count(opened) == oracle.rows
    anew = store.open_store(where)
    for number, expected in oracle.versions.items():
        assert stores.held(store.snapshot(anew, number)) == expected
    log = {version.number: version.pairs for version in store.log(anew)}
    assert log == {number: len(expected) for number, expected in oracle.versions.items()}
    for before, after in zip(oracle.versions, list(oracle.versions)[1:], strict=False):
        former, latter = oracle.versions[before], oracle.versions[after]
        added, removed = store.diff(anew, before, after)
        assert added.tolist() == sorted(latter.keys() - former.keys())
        assert removed.tolist() == sorted(former.keys() - latter.keys())


@pytest.mark.parametrize("first", [1, 3, 4, 5])
def test_rows_across_the_borders_of_chunks(tmp_path, first):
    expected = []
    opened = stores.create(tmp_path / "store")
    for count in (first, 1, 3, 4, 5, 9):
        given, pairs = stores.embeddings(count), stores.pairs(count, f"after {len(expected)}")
        assert store.append(opened, given, pairs).start == len(expected)
        expected += stores.expected_rows(given, pairs)
        assert stores.newest(opened)[1] == dict(enumerate(expected))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("given", ["float64", "float32", "float16", "int8"])
def test_a_store_keeps_the_bits_of_a_model(tmp_path, dtype, given):
    opened = stores.create(tmp_path / "store", dtype=dtype)
    arrays = {m: (50 * a).astype(given) for m, a in stores.embeddings(9).items()}
    # What scales must hold for the small and the large, too.
    arrays["text"][0] = np.finfo(given).tiny if "float" in given else 1
    arrays["text"][1] = 127
    store.append(opened, arrays, stores.pairs(9))
    expected = stores.expected_rows(arrays, stores.pairs(9), dtype)
    assert list(stores.newest(opened)[1].values()) == expected


def bad(**changes):
    return stores.embeddings(2) | changes


NOT_FINITE = np.array([[1, 2, 3], [4, np.nan, 6]])
TWO = stores.pairs(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: store.append(s, bad(image=np.ones([2, 4])), TWO), "takes embeddings of shapes"),
        (lambda s: store.append(s, bad(image=np.ones([3, 3])), TWO), "takes embeddings of shapes"),
        (lambda s: store.append(s, bad(sound=np.ones([2, 3])), TWO), "takes embeddings of shapes"),
        (lambda s: store.append(s, {"image": np.ones([2, 3])}, TWO), "takes embeddings of shapes"),
        (lambda s: store.append(s, bad(), TWO[:1]), "takes embeddings of shapes"),
        (lambda s: store.append(s, stores.embeddings(0), []), "at least one pair"),
        (lambda s: store.append(s, bad(image=NOT_FINITE), TWO), "infinity in 1 of 2 .* row 1"),
        (lambda s: store.append(s, bad(image=NOT_FINITE * np.inf), TWO), "infinity in 2 of 2"),
        (lambda s: store.replace(s, [0], bad(image=NOT_FINITE), TWO), "infinity in 1 of 2"),
        (lambda s: store.append(s, bad(image=np.full([2, 3], 1e300)), TWO), "infinity in 2 of 2"),
        (lambda s: store.replace(s, [0, 2], bad(), TWO), "row 2 holds no pair any more"),
        (lambda s: store.replace(s, [12], bad(), TWO), "no row 12 among 12"),
        (lambda s: store.remove(s, [0, 2]), "row 2 holds no pair any more"),
        (lambda s: store.remove(s, [9, 3]), "row 9 holds no pair any more, or never did"),
        (lambda s: store.remove(s, [1, 12]), "no row 12 among 12"),
        (lambda s: store.remove(s, [-1]), "no row -1 among 12"),
        (lambda s: store.remove(s, [1.5]), "rows must be integers"),
        (lambda s: store.remove(s, np.ones(12, bool)), "rows must be integers"),
        (lambda s: store.replace(s, [1.5], bad(), TWO), "rows must be integers"),
        (lambda s: store.name_version(s, 9, "late"), "has versions 1 to 4, not 9"),
        (lambda s: store.name_version(s, 0, "early"), "has versions 1 to 4, not 0"),
        (lambda s: store.name_version(s, 1, "12"), "'12' cannot be the name"),
        (lambda s: store.name_version(s, 1, ""), "'' cannot be the name"),
        (lambda s: store.name_version(s, 1, "  "), "'  ' cannot be the name"),
        (lambda s: store.name_version(s, 1, "a/b"), "'a/b' cannot be the name"),
        (lambda s: store.name_version(s, 1, "\udcff"), "cannot be the name"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_what_is_refused_leaves_no_version(tmp_path, change, message):
    opened = stores.filled(tmp_path / "store")
    store.remove(opened, [2])
    # Rows 8 to 11 are allotted and hold nothing.
    start_job(opened, identity="a", source="a set", size=4, part=4)
    before = stores.newest(opened)
    with pytest.raises(ValueError, match=message):
        change(opened)
    assert stores.newest(store.open_store(tmp_path / "store")) == before
    assert store.row_count(opened) == 12


def test_removing_nothing_makes_no_version(tmp_path):
    opened = stores.filled(tmp_path / "store")
    store.remove(opened, [])
    assert store.snapshot(opened).version == 2


def test_a_row_named_twice_is_removed_once(tmp_path):
    opened = stores.filled(tmp_path / "store")
    store.remove(opened, [3, 1, 3])
    assert np.flatnonzero(~store.snapshot(opened).live).tolist() == [1, 3]
    assert store.log(opened)[0].removed == 2


def test_an_exception_within_a_commit_drops_it(tmp_path):
    opened = stores.filled(tmp_path / "store")
    before = stores.newest(opened)
    with pytest.raises(KeyboardInterrupt), commit(opened, "never") as change:
        units = unit_rows(opened, stores.embeddings(2), count=2)
        append_rows(change, units, stores.pairs(2))
        remove_rows(change, np.array([1]))
        raise KeyboardInterrupt
    assert stores.newest(opened) == stores.newest(store.open_store(tmp_path / "store")) == before


def test_a_version_stays_what_it_is(tmp_path):
    opened = stores.filled(tmp_path / "store")
    found, unread = store.snapshot(opened), store.snapshot(opened)
    before = stores.held(found)
    other = store.open_store(tmp_path / "store")
    store.replace(other, [0, 5], stores.embeddings(9, 1), stores.pairs(9, "other"))
    store.change_settings(other, Settings("paper", {"k": 1, "p": 1.0}))
    assert stores.held(found) == stores.held(unread) == before
    assert store.snapshot(opened).version == 4


def test_settings_are_of_a_version(tmp_path):
    opened = stores.filled(tmp_path / "store")
    store.change_settings(opened, Settings("paper", {"k": 5, "p": 2.5}))
    store.change_settings(opened, Settings("paper", {"p": 3.0}))
    settings = [store.snapshot(opened, number).settings for number in (1, 2, 3, 4)]
    chosen = [Settings("paper", given) for given in ({"k": 5, "p": 2.5}, {"p": 3.0})]
    assert settings == [Settings(), Settings(), *chosen]


def remove_these(*rows):
    def change(opened, under_way):
        remove_rows(under_way, np.array(rows))

    return change


def append_two(opened, under_way):
    units = unit_rows(opened, stores.embeddings(2, 7), count=2)
    append_rows(under_way, units, stores.pairs(2, "late"))


def name_it(opened, under_way):
    under_way.kv.write("names/here", "2").result()


CHANGES = {
    "remove 1": remove_these(1),
    "remove 2": remove_these(2),
    "remove 5": remove_these(5),
    "append": append_two,
    "name": name_it,
}


def interleave(where, outer, inner):
    """Two handles of a store: the second commits all of its change within the commit of the first.

    Returns the store's newest version in between, and why the first was refused.
    """
    first, second = store.open_store(where), store.open_store(where)
    try:
        with commit(first, "first") as slow:
            CHANGES[outer](first, slow)
            with commit(second, "second") as fast:
                CHANGES[inner](second, fast)
            between = stores.newest(store.open_store(where))
    except StoreError as error:
        return between, str(error)
    return between, None


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("remove 1", "remove 1"),
        # Rows of one chunk: what was read of it is no longer so.
        ("remove 1", "remove 2"),
        ("append", "append"),
        ("remove 5", "append"),
        ("name", "append"),
    ],
)
def test_of_two_writers_in_each_others_way_one_wins(unlocked, tmp_path, outer, inner):
    where = tmp_path / "store"
    opened = stores.filled(where)
    between, refused = interleave(where, outer, inner)
    expected = "another writer changed it meanwhile; nothing of this was kept, try again"
    assert refused == f"{where}: {expected}"
    assert stores.newest(opened) == stores.newest(store.open_store(where)) == between
    assert [version.message for version in store.log(opened)] == ["second", "add", "create"]


@pytest.mark.parametrize(
    ("outer", "inner"), [("remove 1", "remove 5"), ("append", "remove 1"), ("name", "remove 1")]
)
def test_two_writers_apart_both_land(unlocked, tmp_path, outer, inner):
    where = tmp_path / "store"
    opened = stores.filled(where)
    _, before = stores.newest(opened)
    (_, between), refused = interleave(where, outer, inner)
    assert refused is None
    gone = {int(name[-1]) for name in (outer, inner) if name.startswith("remove")}
    _, after = stores.newest(opened)
    assert between.keys() == before.keys() - {int(inner[-1])}
    assert after.keys() == (before.keys() - gone) | ({6, 7} if outer == "append" else set())
    assert {row: after[row] for row in before if row not in gone} == {
        row: what for row, what in before.items() if row not in gone
    }
    messages = [version.message for version in store.log(opened)]
    assert messages == ["first", "second", "add", "create"]
    # Whatever else lies in the store is there for the next who opens it.
    assert stores.everything(where)
    kv = store.open_store(where).kv
    assert all(kv.read(key).result().value for key in kv.list().result())


@pytest.mark.parametrize(
    ("outer", "message"),
    [("append", "another writer changed it meanwhile"), ("remove 1", "row 1 holds no pair any")],
)
def test_what_lands_before_anything_was_read_counts_too(unlocked, tmp_path, outer, message):
    opened = stores.filled(tmp_path / "store")
    other = store.open_store(tmp_path / "store")
    with pytest.raises(StoreError, match=message), commit(opened, "slow") as slow:
        store.replace(other, [1], stores.embeddings(3, 1), stores.pairs(3, "early"))
        between = stores.newest(other)
        CHANGES[outer](opened, slow)
    assert stores.newest(opened) == between and len(between[1]) == 8


def test_who_lands_while_another_begins_wins(unlocked, tmp_path, monkeypatch):
    opened = stores.filled(tmp_path / "store")

    def meanwhile(*arguments):
        monkeypatch.undo()
        other = store.open_store(tmp_path / "store")
        store.append(other, stores.embeddings(3, 1), stores.pairs(3, "early"))
        return open_arrays(*arguments)

    monkeypatch.setattr(commits, "open_arrays", meanwhile)
    with pytest.raises(StoreError, match="another writer changed it meanwhile"):
        store.append(opened, stores.embeddings(2), stores.pairs(2))
    assert len(stores.newest(opened)[1]) == 9 == store.row_count(opened)


def test_who_was_refused_can_try_again(unlocked, tmp_path):
    where = tmp_path / "store"
    opened = stores.filled(where)
    _, refused = interleave(where, "remove 1", "remove 2")
    assert refused is not None
    store.remove(opened, [1])
    assert list(stores.newest(opened)[1]) == [0, 3, 4, 5]


def test_a_writer_waits_for_another(tmp_path):
    where = tmp_path / "store"
    first, second = stores.filled(where), store.open_store(where)
    begun, rows = threading.Event(), []

    def append():
        begun.set()
        rows.extend(store.append(second, stores.embeddings(2), stores.pairs(2, "second")))

    writer = threading.Thread(target=append)
    with commit(first, "first", removed=1) as change:
        writer.start()
        begun.wait()
        remove_rows(change, np.array([1]))
        append_two(first, change)
    writer.join()
    assert rows == [8, 9] and len(stores.newest(first)[1]) == 9
    assert [version.message for version in store.log(first)[:2]] == ["add", "first"]


def test_many_writers_are_never_refused(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{_HELPERS}:{_HELPERS.parents[1]}", "XLA_FLAGS": ""}
    command = [sys.executable, _HELPERS / "contend.py", tmp_path / "store", "4", "80"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_a_folder_that_cannot_be_locked_is_written_to(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    assert len(stores.newest(stores.filled(tmp_path / "store"))[1]) == 6


def test_images_and_captions_are_found(tmp_path):
    opened = stores.create(tmp_path / "store")
    pairs = [
        StoredPair("/a/cow.png", ("A cow.",)),
        StoredPair("/a/horse.png", ("STRASSE", "a Field")),
        StoredPair("/b/cow.png", ("field mice",)),
        StoredPair("/b/new\nline.png", ("",)),
    ]
    store.append(opened, stores.embeddings(4), pairs)
    store.remove(opened, [2])
    found = store.snapshot(opened)
    assert store.matching_rows(found, images=["/a/*"]) == [0, 1]
    assert store.matching_rows(found, images=["/?/cow.png"]) == [0]
    assert store.matching_rows(found, images=["cow.png"]) == []
    assert store.matching_rows(found, images=["*.png"]) == [0, 1, 3]
    assert store.matching_rows(found, captions=["fIELd"]) == [1]
    assert store.matching_rows(found, captions=["straße"]) == [1]
    assert store.matching_rows(found, images=["/b/*"], captions=["cow"]) == [0, 3]
    assert store.matching_rows(found) == []


def test_pairs_read_like_a_sequence(tmp_path):
    opened = stores.filled(tmp_path / "store", count=9)
    store.remove(opened, [0, 4])
    pairs = store.StoredPairs(store.snapshot(opened))
    expected = [pair for row, pair in enumerate(stores.pairs(9)) if row not in (0, 4)]
    assert list(pairs) == expected and len(pairs) == 7
    assert pairs[-1] == expected[-1]
    assert pairs[1:6:2] == tuple(expected[1:6:2])
    assert pairs.at(4) == stores.pairs(9)[4]
    with pytest.raises(IndexError):
        pairs[7]
