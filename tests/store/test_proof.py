from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import stores

from asif_jax import methods, store
from asif_jax.core import anchors
from asif_jax.store import StoredPair, proof

# Rows of 16 bytes or more, so that they are looked for.
DIMENSIONS = {"image": 8, "text": 12}


def filled(where, pairs, *, dtype="float32", given=None):
    opened = stores.create(where, dtype=dtype, dimensions=DIMENSIONS)
    given = stores.embeddings(len(pairs), 0, DIMENSIONS) if given is None else given
    store.append(opened, given, pairs)
    return opened


def named(count):
    return [
        StoredPair(
            f"/folder/of/images/{i}.png", (f"A caption, Nº {i}, 犬.", f"Another one, No. {i}.")
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("count", [9, 300])
def test_what_was_removed_is_in_no_file_after_compaction(tmp_path, dtype, count):
    where = tmp_path / "store"
    opened = filled(where, named(count), dtype=dtype)
    gone = [0, 3, 8]
    store.remove(opened, gone)
    found = store.snapshot(opened)
    patterns = proof.removed_bytes(found)
    units = stores.expected_rows(stores.embeddings(count, 0, DIMENSIONS), named(count), dtype)
    expected = set()
    for row in gone:
        pair, *embeddings = units[row]
        expected |= {*embeddings, *(text.encode() for text in (pair.image, *pair.captions))}
    assert expected <= set(patterns) and len(patterns) == len(expected) + len(gone)
    before = proof.search_bytes(opened, patterns)
    assert before.found and before.patterns == len(patterns)
    # Each by itself is there, and a plain search says the same.
    for pattern in patterns:
        holders = [n for n, path in stores.files(where).items() if pattern in path.read_bytes()]
        assert holders and list(proof.search_bytes(opened, [pattern]).found) == holders
    done = store.compact(opened, progress=False)
    after = proof.search_bytes(done.store, patterns)
    contents = [path.read_bytes() for path in stores.files(where).values()]
    assert (after.found, after.files, after.size) == ((), len(contents), sum(map(len, contents)))
    assert not any(pattern in content for pattern in patterns for content in contents)
    # The live ones are there all the same.
    kept = proof.search_bytes(done.store, [units[1][1], units[1][0].image.encode()])
    assert kept.found


@pytest.mark.parametrize("place", [0, 1, 7, 8, 9, 1000, 4075, 4076])
def test_bytes_are_found_wherever_they_are(tmp_path, place):
    opened = filled(tmp_path / "store", named(3))
    pattern = b"twenty bytes of text"
    content = bytearray(np.random.default_rng(place).bytes(4096))
    content[place : place + len(pattern)] = pattern
    (tmp_path / "store" / "planted").write_bytes(content)
    others = [b"sixteen other by", b"twenty bytes of something else"]
    assert proof.search_bytes(opened, [*others, pattern]).found == ("planted",)
    assert proof.search_bytes(opened, others).found == ()
    content[place + 15] ^= 1
    (tmp_path / "store" / "planted").write_bytes(content)
    assert proof.search_bytes(opened, [*others, pattern]).found == ()


def test_a_pattern_cut_off_by_the_end_is_not_found(tmp_path):
    opened = filled(tmp_path / "store", named(3))
    for length in range(20):
        (tmp_path / "store" / "planted").write_bytes(b"twenty bytes of text"[:length])
        assert proof.search_bytes(opened, [b"twenty bytes of text"]).found == ()


def test_what_live_pairs_hold_as_well_is_not_looked_for(tmp_path):
    given = stores.embeddings(3, 0, DIMENSIONS)
    # Two pairs of one caption, and a caption within another.
    given["text"][1] = given["text"][0]
    captions = ["A dog in the grass", "A dog in the grass", "See: A dog in the grass, asleep"]
    pairs = [StoredPair(f"/folder/of/images/{i}", (text,)) for i, text in enumerate(captions)]
    opened = filled(tmp_path / "store", pairs, given=given)
    store.remove(opened, [0])
    units = anchors.create(given).embeddings
    patterns = proof.removed_bytes(store.snapshot(opened))
    assert patterns == sorted(
        [
            b"/folder/of/images/0",
            b'["/folder/of/images/0", ["A dog in the grass"]]',
            np.asarray(units["image"][0]).tobytes(),
        ]
    )
    done = store.compact(opened, progress=False)
    assert proof.search_bytes(done.store, patterns).found == ()


def test_nothing_removed_is_nothing_to_look_for(tmp_path):
    opened = filled(tmp_path / "store", named(5))
    assert proof.removed_bytes(store.snapshot(opened)) == []
    assert proof.search_bytes(opened, []).found == ()
    store.remove(opened, range(5))
    assert len(proof.removed_bytes(store.snapshot(opened))) == 5 * 6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_are_those_of_a_model_without_the_pairs(tmp_path, dtype):
    opened = filled(tmp_path / "store", named(40), dtype=dtype)
    store.remove(opened, range(0, 40, 3))
    scores = proof.compare_scores(store.snapshot(opened))
    # 40 queries of two modalities, each against each.
    assert scores == ((2 * 40) ** 2, True)


@pytest.mark.parametrize("removed", [[7], range(40)])
def test_scores_that_removed_pairs_have_a_part_in_differ(tmp_path, monkeypatch, removed):
    def heedless(name, settings):
        method = methods.named(name, settings)
        return method._replace(
            fit=lambda pairs: method.fit(pairs._replace(live=jnp.ones_like(pairs.live)))
        )

    opened = filled(tmp_path / "store", named(40))
    store.remove(opened, removed)
    assert proof.compare_scores(store.snapshot(opened)).equal
    monkeypatch.setattr(proof, "methods", SimpleNamespace(named=heedless))
    assert not proof.compare_scores(store.snapshot(opened)).equal
