import json

import pytest
import stores

from asif_jax import store
from asif_jax.store import EncoderRecord, Header, StoreError


def test_a_new_store_is_empty(tmp_path):
    where = tmp_path / "deep" / "down" / "store"
    assert not store.is_store(where)
    opened = stores.create(where)
    assert store.is_store(where)
    found = store.snapshot(opened)
    assert (found.version, found.live.shape, found.settings) == (1, (0,), store.Settings())
    assert {m: a.shape for m, a in found.arrays.items()} == {"image": (0, 3), "text": (0, 5)}
    assert (store.row_count(opened), len(store.StoredPairs(found))) == (0, 0)


def test_what_never_changes_is_read_again(tmp_path):
    encoders = {"image": EncoderRecord("a/\udcff", "ViT 犬"), "sound": EncoderRecord("b", "")}
    header = Header(encoders, {"image": 3, "sound": 7}, "bfloat16", 8)
    store.create(tmp_path / "store", header, settings=store.Settings("paper", {"k": 3, "p": 0.5}))
    opened = store.open_store(tmp_path / "store")
    assert opened.header == header
    assert store.snapshot(opened).settings == store.Settings("paper", {"k": 3, "p": 0.5})


def test_paths_and_urls_name_the_same_store(tmp_path, monkeypatch):
    stores.filled(tmp_path / "a b ü%20 犬")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a b ü%20 犬"
    for where in (path, str(path), f"{path}/", "a b ü%20 犬", "./a b ü%20 犬/"):
        assert store.snapshot(store.open_store(where)).version == 2
    stores.filled(f"file://{tmp_path}/by-url")
    for where in (tmp_path / "by-url", f"file://{tmp_path}/by-url", f"file://{tmp_path}/by-url/"):
        assert store.snapshot(store.open_store(where)).version == 2


def test_no_store_is_made_over_anything(tmp_path):
    stores.filled(tmp_path / "store")
    before = stores.everything(tmp_path / "store")
    with pytest.raises(StoreError, match="there is a store already"):
        stores.create(tmp_path / "store")
    assert stores.everything(tmp_path / "store") == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(StoreError, match="thesis holds other files; name a new directory"):
        stores.create(tmp_path / "thesis")
    with pytest.raises(StoreError, match=r"thesis\.tex is a file, not a store"):
        stores.create(tmp_path / "thesis" / "thesis.tex")
    with pytest.raises(StoreError, match=r"thesis\.tex is a file, not a store"):
        store.is_store(tmp_path / "thesis" / "thesis.tex")
    assert list(stores.files(tmp_path / "thesis")) == ["thesis.tex"]


def test_a_store_is_made_where_making_one_was_killed(tmp_path):
    where = tmp_path / "store"
    stores.filled(where)
    # The pointer comes last.
    (where / "asif-store.json").unlink()
    (where / "asif-store.json.__lock").touch()
    assert not store.is_store(where)
    with pytest.raises(StoreError, match=r"is not a store: it has no asif-store\.json"):
        store.open_store(where)
    opened = stores.create(where)
    assert store.row_count(opened) == 0 and store.snapshot(opened).version == 1
    assert stores.databases(where) == [opened.pointer.database]


def meanwhile(monkeypatch, act):
    """Acts once while the next store is made."""
    from asif_jax.store import database

    def write_empty(*arguments):
        monkeypatch.undo()
        act()
        database.write_empty(*arguments)

    monkeypatch.setattr(database, "write_empty", write_empty)


def test_of_two_who_make_a_store_one_wins(tmp_path, monkeypatch):
    where = tmp_path / "store"
    meanwhile(monkeypatch, lambda: stores.filled(where))
    with pytest.raises(StoreError, match="another writer changed it meanwhile"):
        stores.create(where)
    opened = store.open_store(where)
    assert stores.newest(opened)[0] == 2 and len(stores.newest(opened)[1]) == 6
    assert stores.databases(where) == [opened.pointer.database]


def test_nothing_is_left_of_a_store_that_could_not_be_made(tmp_path, monkeypatch):
    def fail():
        raise OSError("No space left on device")

    meanwhile(monkeypatch, fail)
    with pytest.raises(StoreError, match="store: the disk is full; nothing of this was kept"):
        stores.create(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_deleted_store(tmp_path):
    opened = stores.filled(tmp_path / "store")
    # As a compaction leaves it that was killed.
    (tmp_path / "store" / "db-0123456789abcdef" / "d").mkdir(parents=True)
    (tmp_path / "store" / "db-0123456789abcdef" / "d" / "half").write_text("of it")
    store.delete(opened)
    assert list(tmp_path.iterdir()) == []


def test_other_encoders_are_refused(tmp_path):
    stores.filled(tmp_path / "store")
    same = EncoderRecord("by another name", "image 1")
    store.open_store(tmp_path / "store", encoders={"image": same})
    with pytest.raises(StoreError, match=r"of image-encoder \(image 1\), not of it \(image 2\)"):
        store.open_store(tmp_path / "store", encoders={"image": EncoderRecord("it", "image 2")})
    with pytest.raises(StoreError, match="holds no modality 'sound'"):
        store.open_store(tmp_path / "store", encoders={"sound": same})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format_version": 2}, "is an asif-jax store of version 2, this is 1"),
        ({"format": "other"}, "is an other of version 1"),
        ({"offset": 7}, "damaged: its checksum does not match"),
        ({"database": "db-2"}, "damaged: its checksum does not match"),
        ("{}", "damaged or another program's: KeyError"),
        ("[1]", "damaged or another program's: TypeError"),
        ("", "damaged or another program's: JSONDecodeError"),
    ],
)
def test_a_strange_pointer_is_refused(tmp_path, content, message):
    stores.filled(tmp_path / "store")
    if isinstance(content, dict):
        content = json.dumps(stores.pointer(tmp_path / "store") | content)
    (tmp_path / "store" / "asif-store.json").write_text(content)
    with pytest.raises(StoreError, match=message):
        store.open_store(tmp_path / "store")


def test_a_version_that_is_not_there(tmp_path):
    opened = stores.filled(tmp_path / "store")
    for version in (0, 3, -1, "3", "0"):
        with pytest.raises(StoreError, match=f"store has versions 1 to 2, not {version}"):
            store.snapshot(opened, version)
    for name in ("first", "-1", "", "\udcff", "2.0"):
        with pytest.raises(StoreError, match="store has no version named"):
            store.snapshot(opened, name)
    assert store.snapshot(opened, "1").version == 1


def test_a_modality_may_be_called_as_anything_inside(tmp_path):
    names = ("live", "pairs", "rows", "sums", "settings", "jobs")
    dimensions = dict.fromkeys(names, 3)
    opened = stores.filled(tmp_path / "store", dimensions=dimensions)
    expected = stores.expected_rows(stores.embeddings(6, 0, dimensions), stores.pairs(6))
    store.remove(opened, [2])
    assert list(stores.newest(store.open_store(tmp_path / "store"))[1].values()) == [
        row for index, row in enumerate(expected) if index != 2
    ]
    done = store.compact(opened, progress=False)
    assert len(stores.newest(done.store)[1]) == 5
    for name in ("", "a/b"):
        with pytest.raises(StoreError, match="cannot be the name of a modality"):
            stores.create(tmp_path / "other", dimensions={name: 3})
