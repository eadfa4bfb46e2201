"""Pairs of three through the command: an image, captions and a recording, by a user's encoder."""

import json

import numpy as np
import pytest
import toy
from command import fail, succeed

from asif_jax import store

ENCODERS = [f"{m}=toy:{m}_encoder" for m in ("image", "text", "speech")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_threes(tmp_path_factory.mktemp("threes"), 42)


def embed(folder, where, *options):
    named = [word for encoder in ENCODERS for word in ("--encoder", encoder)]
    return json.loads(succeed("embed", folder, "-o", where, *named, *options, "--json").stdout)


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    where = tmp_path_factory.mktemp("models") / "threes"
    assert embed(folder, where)["pairs"] == 42
    return where


def scores(where):
    """Recordings against texts."""
    found = store.load(where)
    left = found.represent(found.anchors.embeddings["speech"], "speech")
    right = found.represent(found.anchors.embeddings["text"][:, 0], "text")
    return np.asarray(found.score(left, right))


def test_a_recording_finds_the_texts_of_its_color(model):
    # White and grey have one direction, all else is told apart.
    texts = [pair.captions[0].split()[0] for pair in store.load(model).pairs]
    best = scores(model).argmax(axis=1)
    assert np.mean([texts[i] == texts[j] for i, j in enumerate(best)]) > 0.8
    about = json.loads(succeed("info", model, "--json").stdout)
    assert about["method"] == "two_cosines"
    assert about["encoders"]["speech"]["source"] == "toy:speech_encoder"


def test_the_model_names_searches_and_explains(model, folder):
    image = next((folder / "warm").glob("*.png"))
    (named,) = json.loads(
        succeed("classify", model, image, "--labels", "red", "blue", "--json").stdout
    )
    assert {guess["label"] for guess in named["guesses"]} == {"red", "blue"}
    assert sum(guess["probability"] for guess in named["guesses"]) == pytest.approx(1.0)
    found = json.loads(succeed("search", model, "a green thing", "--json").stdout)
    assert "green" in found[0]["captions"][0]
    why = json.loads(succeed("explain", model, image, "red", "--top", 1000, "--json").stdout)
    shares = [pair["contribution"] for pair in why["pairs"]]
    assert sum(shares) == pytest.approx(why["score"], abs=1e-5)
    assert min(shares) < 0 < max(shares)


@pytest.mark.parametrize("form", ["safetensors", "npy"])
def test_an_export_keeps_all_three(model, tmp_path, form):
    succeed("export", model, "-o", tmp_path / "out", "--form", form)
    names = [w for e in ENCODERS for w in ("--encoder", e)] if form == "npy" else []
    succeed("import", tmp_path / "out", "-o", tmp_path / "again", *names)
    again = store.load(tmp_path / "again")
    assert set(again.anchors.embeddings) == {"image", "text", "speech"}
    if form == "safetensors":
        np.testing.assert_allclose(scores(tmp_path / "again"), scores(model), atol=1e-5)


def test_a_set_without_recordings_is_refused(model, tmp_path):
    toy.write_pairs(tmp_path / "twos", 5)
    assert "speech" in fail("add", model, tmp_path / "twos")
