"""The real `asif-jax tune`, on models that need no encoder."""

import json

import numpy as np
import pytest
import stores
from command import fail, succeed

from asif_jax import methods, store
from asif_jax.core import anchors
from asif_jax.methods.comparison import compare
from asif_jax.model import create


def save(directory, count, *, k=1):
    rng = np.random.default_rng(0)
    cause = rng.normal(size=[count, 3])
    embeddings = {m: cause @ rng.normal(size=[3, 5]) for m in ("image", "text")}
    pairs = tuple(store.StoredPair(f"{i}.png", (f"thing {i}",)) for i in range(count))
    encoders = {m: store.EncoderRecord(f"{m}-encoder", "0123") for m in embeddings}
    method = methods.paper(k=k, p=4.0)
    store.save(directory, create(anchors.create(embeddings), pairs, encoders, method))
    return directory


@pytest.fixture
def model(tmp_path):
    return save(tmp_path / "model", 60)


def test_prints_what_the_function_finds_and_writes_nothing(model):
    before = {name: path.read_bytes() for name, path in stores.files(model).items()}
    options = ("--method", "paper", "--k", 2, 9, "--p", 1, 3, "--json")
    found = json.loads(succeed("tune", model, *options).stdout)
    tried = [methods.paper(k=k, p=p) for k in (2, 9) for p in (1.0, 3.0)]
    expected = list(compare(store.load(model).anchors, tried))
    recalls = [float(trial.recall.mean()) for trial in expected]
    assert [trial["settings"] for trial in found["trials"]] == [dict(m.settings) for m in tried]
    np.testing.assert_allclose([trial["recall"] for trial in found["trials"]], recalls)
    assert found["settings"] == dict(tried[int(np.argmax(recalls))].settings)
    assert (found["held_out"], found["splits"], found["pairs"], found["at"]) == (12, 3, 60, 10)
    assert (found["method_before"], found["settings_before"]) == ("paper", {"k": 1, "p": 4.0})
    assert found["applied"] is False
    assert {name: path.read_bytes() for name, path in stores.files(model).items()} == before


def test_several_kinds_of_methods_are_tried(model):
    text = succeed("tune", model).stdout
    for name in ("two_cosines", "asif", "cca", "paper"):
        assert f"\n{name} " in text
    assert "before: paper, k = 1, p = 4.0" in text
    assert "--apply writes it into the model" in text


def test_apply_writes_the_method_with_its_calibration(model):
    version, before = stores.newest(store.open_store(model))
    succeed("tune", model, "--method", "paper", "--k", 9, "--p", 2, "--apply")
    after = store.load(model)
    assert (after.method.name, after.method.settings) == ("paper", {"k": 9, "p": 2.0})
    assert after.calibration is not None and after.calibration.temperature > 0
    assert stores.newest(store.open_store(model)) == (version + 1, before)
    former = store.load(model, version)
    assert (former.method.settings, former.calibration) == ({"k": 1, "p": 4.0}, None)
    assert store.log(store.open_store(model))[0].message == "tune: paper, k = 9, p = 2.0"


def test_unusable_requests(model, tmp_path):
    before = stores.newest(store.open_store(model))
    assert "k=99" in fail("tune", model, "--method", "paper", "--k", 99, "--apply")
    assert "[-1.0]" in fail("tune", model, "--p", -1)
    assert "takes no k" in fail("tune", model, "--method", "cca", "--k", 3)
    assert "did you mean paper?" in fail("tune", model, "--method", "papr")
    assert "--splits must be at least 1" in fail("tune", model, "--splits", 0)
    assert "1 of 1 pairs" in fail("tune", save(tmp_path / "one", 1), "--apply")
    assert "is not a store" in fail("tune", tmp_path)
    assert stores.newest(store.open_store(model)) == before
