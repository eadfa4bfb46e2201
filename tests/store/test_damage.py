"""Whatever happens to a file of a store, it is noticed, or the store holds nothing in its place."""

import pytest
import stores

from asif_jax import store
from asif_jax.store import Settings, StoredPair, StoreError
from asif_jax.store.commits import unit_rows
from asif_jax.store.jobs import Outcome, start_job, write_part

# Bytes of a file that are flipped, one at a time. The pointer and the manifest are smaller.
_PLACES = 200
_SMALL = 600
# Chunks of images are larger than what lies in the index, those of texts are not.
_DIMENSIONS = {"image": 300, "text": 5}


def embeddings(count, seed):
    return stores.embeddings(count, seed, _DIMENSIONS)


def made(where):
    """A store in which all that it can hold lies both in the index and in files of its own."""
    opened = stores.filled(where, count=6, dimensions=_DIMENSIONS)
    store.remove(opened, [1, 4], message="why " * 2000)
    long = [StoredPair(f"{i}.png", ("long " * 400, str(i))) for i in range(6)]
    store.append(opened, embeddings(6, 1), long)
    store.change_settings(opened, Settings("paper", {"k": 3, "p": 2.5}))
    store.name_version(opened, 3, "three")
    for identity, reason in (("a", "why"), ("b", "why not " * 400)):
        job = start_job(opened, identity=identity, source="set", size=5, part=4)
        units = unit_rows(opened, embeddings(4, 2), count=4)
        outcome = Outcome(1, 0, tuple((f"{i}.png", reason) for i in range(3)))
        pairs = [None, None, StoredPair("late.png", ("late",)), None]
        write_part(opened, job, 0, units, pairs, outcome)
    return opened


@pytest.fixture
def damaged(tmp_path):
    """A store, and a check that a changed file of it is noticed or does not matter."""
    where = tmp_path / "store"
    made(where)
    truth = stores.everything(where, jobs="abc")

    def check(path, content):
        former = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        try:
            found = stores.everything(where, jobs="abc")
        except StoreError as error:
            assert str(error).startswith(str(where)), error
            return True
        finally:
            path.write_bytes(former)
        assert found == truth
        return False

    check.files = stores.files(where)
    yield check
    assert stores.everything(where, jobs="abc") == truth


def test_every_kind_of_file_is_there(damaged):
    sizes = {name: path.stat().st_size for name, path in damaged.files.items()}
    assert sum("/d/" in name for name in sizes) > 5
    assert {name.split("/")[-1] for name in sizes} >= {"asif-store.json", "manifest.ocdbt"}
    assert sum(sizes.values()) > 30_000


def test_a_flipped_bit_is_noticed(damaged):
    noticed = total = 0
    for path in damaged.files.values():
        content = path.read_bytes()
        step = 1 if len(content) <= _SMALL else len(content) // _PLACES
        for place in range(0, len(content), step):
            flipped = bytearray(content)
            flipped[place] ^= 1 << (place % 8)
            noticed += damaged(path, bytes(flipped))
            total += 1
    assert noticed > 0.9 * total > 1500


def test_a_torn_file_is_noticed(damaged):
    noticed = total = 0
    for path in damaged.files.values():
        content = path.read_bytes()
        for length in range(0, len(content), -(-len(content) // 40)):
            # Cut short, and as a disk leaves it that lost power: the end is zeros.
            torn = content[:length]
            noticed += damaged(path, torn) + damaged(path, torn.ljust(len(content), b"\0"))
            total += 2
    assert noticed > 0.9 * total > 500


def test_a_missing_file_is_noticed(damaged):
    assert all(damaged(path, None) for path in damaged.files.values())


def test_files_that_changed_places_are_noticed(damaged):
    contents = [path.read_bytes() for path in damaged.files.values()]
    for number, path in enumerate(damaged.files.values()):
        assert damaged(path, contents[number - 1])


def test_rubbish_is_noticed(damaged):
    for path in damaged.files.values():
        for content in (b"", b"\0" * 9, b"\xff" * 9000, b"{" * 100_000):
            assert damaged(path, content)
