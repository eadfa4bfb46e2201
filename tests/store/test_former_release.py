"""A store of the first release: tests/data_files/store_of_release_1, made by its make.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import stores

from asif_jax import store
from asif_jax.store import Settings, StoredPair, proof

FORMER = Path(__file__).parent.parent / "data_files" / "store_of_release_1"
DIMENSIONS = {"image": 6, "text": 4}


@pytest.fixture
def where(tmp_path):
    return shutil.copytree(FORMER / "store", tmp_path / "store")


def scores(model):
    queries = stores.embeddings_of(5, 2, DIMENSIONS)
    sides = (model.represent(queries[m], m) for m in ("image", "text"))
    return np.asarray(model.score(*sides))


def test_it_opens_as_the_papers_method_with_its_k_and_p(where):
    found = store.snapshot(store.open_store(where))
    assert found.settings == Settings("paper", {"k": 7, "p": 3.0})
    assert (found.header.several, found.version, found.live.sum()) == ((), 3, 18)
    assert store.StoredPairs(found)[3] == StoredPair("/photos/4.png", ("Ding Nº 4 犬", "thing 4"))
    assert [version.message for version in store.log(store.open_store(where))] == [
        *("remove", "add", "create")
    ]


def test_it_scores_as_it_did(where):
    former = json.loads((FORMER / "scores.json").read_text())
    model = store.load(where)
    assert model.method[-2:] == ("paper", {"k": former["k"], "p": former["p"]})
    np.testing.assert_allclose(scores(model), former["scores"], atol=1e-6)


def test_it_is_edited_and_compacted(where):
    opened, before = store.open_store(where), scores(store.load(where))
    rows = store.append(opened, stores.embeddings_of(2, 9, DIMENSIONS), stores.pairs(2, "new"))
    assert rows == range(20, 22)
    assert not np.allclose(scores(store.load(where)), before, atol=1e-3)
    assert proof.compare_scores(store.snapshot(opened)).equal
    store.remove(opened, rows)
    np.testing.assert_allclose(scores(store.load(where)), before, atol=1e-6)
    patterns = proof.removed_bytes(store.snapshot(opened))
    done = store.compact(opened, progress=False)
    assert (done.pairs, done.rows) == (18, 4)
    assert proof.search_bytes(done.store, patterns).found == ()
    assert store.snapshot(done.store).settings == Settings("paper", {"k": 7, "p": 3.0})
    np.testing.assert_allclose(scores(store.load(where)), before, atol=1e-6)
