import os
import subprocess
import sys
from pathlib import Path

import kill_compaction
import numpy as np
import pytest
import stores

from asif_jax import store
from asif_jax.store import Settings, StoreError, compaction
from asif_jax.store.commits import append_rows, commit, unit_rows
from asif_jax.store.database import write_log
from asif_jax.store.jobs import start_job

_HELPERS = Path(__file__).parents[1] / "helpers"


def edited(where, **options):
    """A store of 13 live pairs in its seventh version, with rows that hold none in between."""
    opened = stores.filled(where, count=9, **options)
    store.remove(opened, [0, 5, 8])
    start_job(opened, identity="a", source="set", size=5, part=4)
    store.append(opened, stores.embeddings(7), stores.pairs(7, "late"))
    store.change_settings(opened, Settings("paper", {"k": 3, "p": 2.5}))
    store.name_version(opened, 2, "first")
    return opened


def in_order(opened):
    return list(stores.newest(opened)[1].values())


@pytest.mark.parametrize("piece", [1 << 14, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_live_pairs_stay_in_order(tmp_path, monkeypatch, piece, dtype):
    monkeypatch.setattr(compaction, "_ROWS", piece)
    where = tmp_path / "store"
    opened = edited(where, dtype=dtype)
    before = in_order(opened)
    done = store.compact(opened, progress=False)
    assert (done.pairs, done.rows) == (13, 11)
    for opened in (done.store, store.open_store(where)):
        found = store.snapshot(opened)
        assert list(stores.held(found)) == list(range(13)) == list(range(store.row_count(opened)))
        assert in_order(opened) == before
        assert found.settings == Settings("paper", {"k": 3, "p": 2.5})
        assert found.header == done.store.header
    assert stores.databases(where) == [done.store.pointer.database]


def test_versions_go_on_counting(tmp_path):
    opened = edited(tmp_path / "store")
    former = store.snapshot(opened).version
    done = store.compact(opened, progress=False)
    first = store.snapshot(done.store).version
    assert first > former
    store.remove(done.store, [1])
    again = store.open_store(tmp_path / "store")
    assert [(v.number, v.pairs) for v in store.log(again)] == [(first + 1, 12), (first, 13)]
    assert store.log(again)[1].message == "compact: 13 pairs kept, 11 rows dropped"
    for version in (1, former, first - 1):
        with pytest.raises(StoreError, match=f"has versions {first} to {first + 1}, not {version}"):
            store.snapshot(again, version)
    with pytest.raises(StoreError, match="no version named 'first'"):
        store.snapshot(again, "first")
    twice = store.compact(again, progress=False).store
    assert store.snapshot(twice).version > first + 1
    assert len(stores.newest(twice)[1]) == 12


def test_a_store_without_pairs(tmp_path):
    opened = stores.filled(tmp_path / "store")
    store.remove(opened, range(6))
    done = store.compact(opened, progress=False)
    assert (done.pairs, done.rows, store.row_count(done.store)) == (0, 6, 0)
    assert store.append(done.store, stores.embeddings(2), stores.pairs(2)) == range(2)


EDITS = {
    "append": lambda opened: store.append(opened, stores.embeddings(2), stores.pairs(2)),
    "remove": lambda opened: store.remove(opened, [1]),
    "settings": lambda opened: store.change_settings(opened, Settings("paper", {"k": 1, "p": 1.0})),
    "job": lambda opened: start_job(opened, identity="b", source="set", size=5, part=4),
}


def test_a_handle_from_before_is_refused(tmp_path):
    where = tmp_path / "store"
    old = edited(where)
    seen = store.snapshot(old)
    store.compact(store.open_store(where), progress=False)
    before = stores.everything(where)
    questions = {"log": store.log, "snapshot": store.snapshot, "rows": store.row_count}
    for name, act in (EDITS | questions).items():
        with pytest.raises(StoreError, match="store: its database is gone: it was compacted, open"):
            act(old)
            pytest.fail(name)
    with pytest.raises(StoreError, match="another writer changed it meanwhile; open it anew"):
        store.compact(old, progress=False)
    with pytest.raises(StoreError, match=r"gone|compacted since"):
        list(store.StoredPairs(seen))
    assert stores.everything(where) == before
    assert stores.databases(where) == [stores.pointer(where)["database"]]


def test_a_commit_does_not_outlive_its_database(unlocked, tmp_path):
    where = tmp_path / "store"
    old = edited(where)
    expected = in_order(old)
    with pytest.raises(StoreError, match=r"gone|another writer"), commit(old, "late") as change:
        units = unit_rows(old, stores.embeddings(2), count=2)
        append_rows(change, units, stores.pairs(2, "late"))
        store.compact(store.open_store(where), progress=False)
    assert in_order(store.open_store(where)) == expected
    # What it had written goes with the next compaction at the latest.
    done = store.compact(store.open_store(where), progress=False)
    assert stores.databases(where) == [done.store.pointer.database]


def test_no_commit_lands_during_a_compaction(tmp_path, monkeypatch):
    where = tmp_path / "store"
    opened = edited(where)
    expected, pieces, refused = in_order(opened), compaction.live_parts, []

    def meanwhile(found, size):
        for edit in EDITS.values():
            with pytest.raises(StoreError, match="it is or was being compacted; compact it again"):
                edit(store.open_store(where))
            refused.append(edit)
        yield from pieces(found, size)

    monkeypatch.setattr(compaction, "live_parts", meanwhile)
    done = store.compact(opened, progress=False)
    assert len(refused) == len(EDITS) and in_order(done.store) == expected


def test_what_lands_as_a_compaction_begins_is_kept(unlocked, tmp_path, monkeypatch):
    where = tmp_path / "store"
    opened = edited(where)
    _, held = stores.newest(opened)

    def meanwhile(*arguments, **options):
        monkeypatch.undo()
        store.remove(store.open_store(where), [1])
        write_log(*arguments, **options)

    monkeypatch.setattr(compaction, "write_log", meanwhile)
    done = store.compact(opened, progress=False)
    assert in_order(done.store) == [what for row, what in held.items() if row != 1]


def test_of_two_compactions_one_wins(tmp_path, monkeypatch):
    where = tmp_path / "store"
    opened = edited(where)
    expected, pieces = in_order(opened), compaction.live_parts

    def meanwhile(found, size):
        monkeypatch.undo()
        store.compact(store.open_store(where), progress=False)
        yield from pieces(found, size)

    monkeypatch.setattr(compaction, "live_parts", meanwhile)
    with pytest.raises(StoreError):
        store.compact(opened, progress=False)
    again = store.open_store(where)
    assert in_order(again) == expected
    assert stores.databases(where) == [again.pointer.database]
    store.remove(again, [0])


@pytest.mark.parametrize("name", ["_copy", "live_parts", "append_rows", "write_pointer"])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_compaction_that_fails_changes_nothing(tmp_path, monkeypatch, name, error):
    def fail(*arguments, **options):
        raise error

    where = tmp_path / "store"
    opened = edited(where)
    _, held = stores.newest(opened)
    past = [stores.held(store.snapshot(opened, number)) for number in range(1, 8)]
    log = store.log(opened)
    monkeypatch.setattr(compaction, name, fail)
    full = isinstance(error, OSError)
    expected, message = (StoreError, "store: the disk is full") if full else (type(error), None)
    with pytest.raises(expected, match=message):
        store.compact(opened, progress=False)
    monkeypatch.undo()
    assert stores.databases(where) == [opened.pointer.database]
    again = store.open_store(where)
    assert stores.newest(again)[1] == held
    assert [stores.held(store.snapshot(again, number)) for number in range(1, 8)] == past
    assert store.snapshot(again, "first").version == 2
    news = store.log(again)[: -len(log)]
    assert store.log(again)[len(news) :] == log
    said = [(version.message, version.pairs) for version in news]
    assert said == [("compaction given up", 13), ("compaction begun", 13)]
    store.remove(opened, [1])
    assert stores.newest(again)[1].keys() == held.keys() - {1}
    assert len(in_order(store.compact(again, progress=False).store)) == 12


@pytest.mark.parametrize("stage", kill_compaction.STAGES)
def test_a_compaction_that_is_killed_is_repeated(tmp_path, stage):
    where = tmp_path / "store"
    opened = edited(where)
    held, database = in_order(opened), opened.pointer.database
    environment = {**os.environ, "XLA_FLAGS": ""}
    command = [sys.executable, _HELPERS / "kill_compaction.py", where, stage]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    again = store.open_store(where)
    assert in_order(again) == held
    moved = stage == "moved"
    assert (again.pointer.database != database) == moved
    # What was half done is there, or the test tests nothing.
    assert len(stores.databases(where)) == (1 if stage == "begun" else 2)
    if moved:
        store.name_version(again, store.snapshot(again).version, "moved")
    else:
        assert stores.held(store.snapshot(again, "first")).keys() == set(range(9))
        with pytest.raises(StoreError, match="it is or was being compacted; compact it again"):
            store.remove(again, [1])
    done = store.compact(again, progress=False)
    assert in_order(done.store) == in_order(store.open_store(where)) == held
    assert stores.databases(where) == [done.store.pointer.database]
    store.remove(done.store, np.arange(13))
