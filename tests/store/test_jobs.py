import numpy as np
import pytest
import stores

from asif_jax import store
from asif_jax.store import StoredPair, StoreError
from asif_jax.store.commits import unit_rows
from asif_jax.store.jobs import (
    Outcome,
    find_job,
    other_references,
    outcomes,
    start_job,
    write_part,
)


def begun(opened, size=10, **options):
    return start_job(opened, **({"identity": "a", "source": "set", "part": 4} | options), size=size)


def part_of(opened, job, number, without=()):
    """What a part of a job writes; rows without a pair have embeddings all the same."""
    span = job.span(number)
    given = {m: a[span.start : span.stop] for m, a in stores.embeddings(job.size).items()}
    pairs = [None if i in without else stores.pairs(job.size, "job")[i] for i in span]
    return unit_rows(opened, given, count=len(span)), pairs


def write(opened, job, number, without=()):
    units, pairs = part_of(opened, job, number, without)
    left_out = [pair is None for pair in pairs]
    outcome = Outcome(left_out.count(False), 0, (("x", "y"),) * left_out.count(True))
    write_part(opened, job, number, units, pairs, outcome)
    rows = stores.rows_of(units, pairs)
    first = job.first + job.span(number).start
    return {first + i: row for i, row in enumerate(rows) if row[0] is not None}


def test_a_job_has_its_rows_from_the_start(tmp_path):
    opened = stores.filled(tmp_path / "store", count=6)
    job = begun(opened, part=5)
    # Rows begin with a chunk, parts are whole chunks: no two parts share one.
    assert (job.first, job.size, job.part, job.parts) == (8, 10, 8, 2)
    assert [list(job.span(number)) for number in range(2)] == [list(range(8)), [8, 9]]
    assert store.row_count(opened) == 18
    assert store.append(opened, stores.embeddings(3), stores.pairs(3)) == range(18, 21)
    assert np.flatnonzero(store.snapshot(opened).live).tolist() == [*range(6), 18, 19, 20]


def test_a_job_is_found_again(tmp_path):
    opened = stores.create(tmp_path / "store")
    assert find_job(opened, "a") is None
    job = begun(opened, source="set \udcff")
    version = store.snapshot(opened).version
    again = store.open_store(tmp_path / "store")
    assert find_job(again, "a") == begun(again, part=64, source="set \udcff") == job
    assert find_job(again, "b") is None and store.snapshot(again).version == version
    other = begun(again, identity="b", size=3)
    assert (other.first, other.parts) == (12, 1)


def test_parts_land_in_any_order(tmp_path):
    opened = stores.filled(tmp_path / "store", count=6)
    expected = stores.held(store.snapshot(opened))
    job = begun(opened)
    for number, without in ((2, ()), (0, (1, 3)), (1, (4, 5, 6, 7))):
        expected |= write(opened, job, number, without)
        assert stores.held(store.snapshot(opened)) == expected
    done = outcomes(store.open_store(tmp_path / "store"), job)
    assert {number: (o.added, len(o.skipped)) for number, o in done.items()} == {
        0: (2, 2),
        1: (0, 4),
        2: (2, 0),
    }
    log = store.log(opened)
    assert [(version.message, version.pairs) for version in log[:3]] == [
        ("set, part 2 of 3", 10),
        ("set, part 1 of 3", 10),
        ("set, part 3 of 3", 8),
    ]
    assert log[3].message == "begin set: room for 10 pairs"


def test_outcomes_come_back(tmp_path):
    opened = stores.create(tmp_path / "store")
    job = begun(opened)
    assert outcomes(opened, job) == {}
    # Beyond 4 KB it is not kept in the index.
    skipped = tuple((f"/a/\udcff {i}.png\n", "not an image: 犬" * 9) for i in range(99))
    given = {1: Outcome(4, 0, ()), 0: Outcome(1, 2, skipped)}
    for number, outcome in given.items():
        write_part(opened, job, number, *part_of(opened, job, number), outcome)
    assert outcomes(opened, job) == outcomes(store.open_store(tmp_path / "store"), job) == given
    assert outcomes(opened, begun(opened, identity="aa")) == {}


def test_a_part_is_written_once(tmp_path):
    opened = stores.create(tmp_path / "store")
    job = begun(opened)
    write(opened, job, 1)
    before = stores.newest(opened)
    with pytest.raises(StoreError, match="store: another process embeds set into it at the same"):
        write(store.open_store(tmp_path / "store"), job, 1, without=(5,))
    assert stores.newest(opened) == before and outcomes(opened, job)[1].added == 4


def nested(monkeypatch, act):
    """Acts once within the next commit, after what it read and before it lands."""
    from asif_jax.store import commits

    def write_log(*arguments, **options):
        monkeypatch.undo()
        act()
        commits.write_log(*arguments, **options)

    monkeypatch.setattr(commits, "write_log", write_log)


def test_parts_by_two_handles_both_land(unlocked, tmp_path, monkeypatch):
    where = tmp_path / "store"
    first, second = stores.create(where), store.open_store(where)
    job, expected = begun(first), {}
    nested(monkeypatch, lambda: expected.update(write(second, job, 1)))
    expected |= write(first, job, 0)
    assert stores.held(store.snapshot(first)) == expected and len(expected) == 8
    assert outcomes(first, job).keys() == {0, 1}


def test_of_two_handles_one_writes_a_part(unlocked, tmp_path, monkeypatch):
    where = tmp_path / "store"
    first, second = stores.create(where), store.open_store(where)
    job, landed = begun(first), {}
    nested(monkeypatch, lambda: landed.update(write(second, job, 0, without=(2,))))
    with pytest.raises(StoreError, match="another process embeds set into it at the same time"):
        write(first, job, 0)
    assert stores.held(store.snapshot(first)) == landed and len(landed) == 3


def test_a_part_lands_though_pairs_are_added_meanwhile(unlocked, tmp_path, monkeypatch):
    where = tmp_path / "store"
    first, second = stores.create(where), store.open_store(where)
    job = begun(first)
    added = stores.embeddings(3), stores.pairs(3, "other")
    nested(monkeypatch, lambda: store.append(second, *added))
    expected = write(first, job, 0)
    held = stores.held(store.snapshot(first))
    assert {row: held[row] for row in expected} == expected and len(held) == len(expected) + 3
    assert [version.added for version in store.log(first)] == [len(expected), 3, 0, 0]


def test_of_two_handles_one_begins_a_job(unlocked, tmp_path, monkeypatch):
    where = tmp_path / "store"
    first, second = stores.create(where), store.open_store(where)
    nested(monkeypatch, lambda: begun(second))
    with pytest.raises(StoreError, match="another writer changed it meanwhile"):
        begun(first)
    assert find_job(first, "a") == begun(first) and store.row_count(first) == 10


def test_a_job_that_another_began_is_not_begun_anew(tmp_path, monkeypatch):
    from asif_jax.store import jobs

    where = tmp_path / "store"
    first, second = stores.create(where), store.open_store(where)
    begun(second)
    # As it was when the first looked.
    monkeypatch.setattr(jobs, "find_job", lambda *_: None)
    with pytest.raises(StoreError, match="another process embeds set into it"):
        begun(first)
    assert store.row_count(first) == 10


@pytest.mark.parametrize("late", [False, True])
def test_pairs_added_meanwhile_share_the_last_chunk(tmp_path, late):
    opened = stores.create(tmp_path / "store")
    job = begun(opened, size=6)
    expected = {}
    for number in (0, 1) if late else ():
        expected |= write(opened, job, number)
    given, pairs = stores.embeddings(3, 5), stores.pairs(3, "meanwhile")
    assert store.append(opened, given, pairs) == range(6, 9)
    expected |= dict(enumerate(stores.expected_rows(given, pairs), start=6))
    for number in () if late else (1, 0):
        expected |= write(opened, job, number)
    assert stores.held(store.snapshot(opened)) == expected and len(expected) == 9


def test_references_beside_a_job(tmp_path):
    opened = stores.filled(tmp_path / "store", count=6)
    job = begun(opened)
    write(opened, job, 0)
    store.append(opened, stores.embeddings(2), [StoredPair(name, ("",)) for name in "xy"])
    store.remove(opened, [2, 19])
    expected = {pair.image for i, pair in enumerate(stores.pairs(6)) if i != 2} | {"x"}
    assert other_references(store.snapshot(opened), job) == {hash(name) for name in expected}
