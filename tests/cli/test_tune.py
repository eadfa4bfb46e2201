"""The real `asif-jax tune`, on models that need no encoder."""

import json

import numpy as np
import pytest
import stores
from command import fail, succeed

from asif_jax import store
from asif_jax.core import anchors
from asif_jax.methods import tuning


def save(directory, count, *, k=1):
    rng = np.random.default_rng(0)
    cause = rng.normal(size=[count, 3])
    embeddings = {m: cause @ rng.normal(size=[3, 5]) for m in ("image", "text")}
    pairs = tuple(store.StoredPair(f"{i}.png", (f"thing {i}",)) for i in range(count))
    encoders = {m: store.EncoderRecord(f"{m}-encoder", "0123") for m in embeddings}
    store.save(directory, store.Model(anchors.create(embeddings), pairs, encoders, k, 4.0))
    return directory


@pytest.fixture
def model(tmp_path):
    return save(tmp_path / "model", 60)


def test_prints_what_the_function_finds_and_writes_nothing(model):
    before = {name: path.read_bytes() for name, path in stores.files(model).items()}
    found = json.loads(succeed("tune", model, "--k", 2, 9, "--p", 1, 3, "--json").stdout)
    surface = tuning.tune(store.load(model).anchors.embeddings, ks=[2, 9], ps=[1, 3])
    choice = tuning.best(surface)
    assert (found["k"], found["p"]) == choice[:2]
    assert (found["ks"], found["ps"]) == ([2, 9], [1.0, 3.0])
    assert (found["held_out"], found["splits"], found["pairs"]) == (surface.held_out, 5, 60)
    np.testing.assert_allclose(found["surface"], surface.recall.mean(axis=(0, -1)), atol=1e-6)
    assert (found["k_before"], found["p_before"], found["applied"]) == (1, 4.0, False)
    assert {name: path.read_bytes() for name, path in stores.files(model).items()} == before


def test_apply_writes_k_and_p_alone(model):
    version, before = stores.newest(store.open_store(model))
    text = succeed("tune", model, "--k", 9, "--p", 2, "--apply").stdout
    assert "k = 9, p = 2, before k = 1, p = 4" in text
    after = store.load(model)
    assert (after.k, after.p) == (9, 2.0)
    assert stores.newest(store.open_store(model)) == (version + 1, before)
    former = store.load(model, version)
    assert (former.k, former.p) == (1, 4.0)
    assert store.log(store.open_store(model))[0].message == "tune: k = 9, p = 2"


def test_unusable_requests(model, tmp_path):
    before = stores.newest(store.open_store(model))
    assert "[99]" in fail("tune", model, "--k", 99, "--apply")
    assert "[-1.0]" in fail("tune", model, "--p", -1)
    assert "--splits must be at least 1" in fail("tune", model, "--splits", 0)
    assert "1 of 1 pairs" in fail("tune", save(tmp_path / "one", 1), "--apply")
    assert "is not a store" in fail("tune", tmp_path)
    assert stores.newest(store.open_store(model)) == before
