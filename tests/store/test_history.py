import pytest
import stores

from asif_jax import store
from asif_jax.store import Settings, StoreError


def edited(where):
    opened = stores.filled(where, count=6)
    store.remove(opened, [1, 4], message="two \udcff are wrong\n犬")
    store.replace(opened, [0], stores.embeddings(3), stores.pairs(3, "new"))
    store.change_settings(opened, Settings("paper", {"k": 2, "p": 3.0}))
    store.name_version(opened, 3, "clean")
    store.append(opened, stores.embeddings(1), stores.pairs(1, "last"), message="one more")
    return opened


def test_the_log_says_what_was_done(tmp_path):
    found = store.log(edited(tmp_path / "store"))
    assert [version[:2] + version[3:] for version in found] == [
        (7, (), "one more", 1, 0, 7),
        (6, (), "name version 3 clean", 0, 0, 6),
        (5, (), "settings", 0, 0, 6),
        (4, (), "replace", 3, 1, 6),
        (3, ("clean",), "two \udcff are wrong\n犬", 0, 2, 4),
        (2, (), "add", 6, 0, 6),
        (1, (), "create", 0, 0, 0),
    ]
    times = [version.time for version in found]
    assert times == sorted(times, reverse=True)


def test_the_newest_of_the_log(tmp_path):
    opened = edited(tmp_path / "store")
    whole = store.log(opened)
    for limit in range(9):
        assert store.log(opened, limit=limit) == whole[:limit]


def test_names(tmp_path):
    opened = edited(tmp_path / "store")
    for version, name in ((2, "b"), (2, "a"), (4, "Nº 5 犬 with spaces"), (5, "a")):
        store.name_version(opened, version, name)
    names = {version.number: version.names for version in store.log(opened) if version.names}
    assert names == {2: ("b",), 3: ("clean",), 4: ("Nº 5 犬 with spaces",), 5: ("a",)}
    for name, version in (("a", 5), ("b", 2), ("clean", 3), ("Nº 5 犬 with spaces", 4)):
        assert store.snapshot(opened, name).version == version
    assert len(store.snapshot(opened, "clean").live) == 6


def test_a_difference_is_of_what_is_live(tmp_path):
    opened = edited(tmp_path / "store")
    expected = {
        (1, 2): ([0, 1, 2, 3, 4, 5], []),
        (2, 3): ([], [1, 4]),
        (3, 2): ([1, 4], []),
        (2, 4): ([6, 7, 8], [0, 1, 4]),
        (4, 2): ([0, 1, 4], [6, 7, 8]),
        (4, 6): ([], []),
        (1, None): ([2, 3, 5, 6, 7, 8, 9], []),
        ("clean", "7"): ([6, 7, 8, 9], [0]),
    }
    for versions, rows in expected.items():
        assert tuple(array.tolist() for array in store.diff(opened, *versions)) == rows
    with pytest.raises(StoreError, match="no version named 'dirty'"):
        store.diff(opened, 2, "dirty")
