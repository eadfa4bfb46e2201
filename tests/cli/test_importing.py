"""The real `asif-jax import` and `export`."""

import json
import shutil

import noise
import numpy as np
import pytest
import stores
from command import fail, succeed

from asif_jax import store

NAMES = ("--image-encoder-name", "open_clip:ViT-B-32", "--text-encoder-name", "mine")


def captioned():
    pairs = tuple(store.StoredPair(f"{i}.png", (f"thing {i}",)) for i in range(7))
    return noise.model(pairs=7, k=3)._replace(pairs=pairs)


@pytest.fixture
def exported(tmp_path):
    """Embeddings as clip-retrieval has them, of 8 and 6 dimensions."""
    store.save(tmp_path / "model", captioned())
    result = succeed("export", tmp_path / "model", "-o", tmp_path / "made", "--json")
    assert json.loads(result.stdout) == {
        "model": str(tmp_path / "model"),
        "version": 2,
        "pairs": 7,
        "skipped": 0,
        "form": "npy",
        "output": str(tmp_path / "made"),
    }
    return tmp_path / "made"


def test_encoders_that_are_known_by_name_alone(exported, tmp_path):
    where = tmp_path / "imported"
    options = (*NAMES, "--k", 2, "--p", 3)
    facts = json.loads(succeed("import", exported, "-o", where, *options, "--json").stdout)
    assert facts == {"model": str(where), "version": 3, "pairs": 7, "added": 7, "skipped": 0}
    model = store.load(where)
    assert (model.k, model.p) == (2, 3.0)
    assert model.encoders["image"] == ("open_clip:ViT-B-32", "name open_clip:ViT-B-32")
    about = json.loads(succeed("info", where, "--json").stdout)["encoders"]
    assert about["text"] == {"source": "mine", "identity": "name mine", "dimensions": 6}
    noise.write_image(tmp_path / "a.png", seed=0)
    for verb, *words in (
        ("search", "a dog"),
        ("explain", tmp_path / "a.png", "a dog"),
        ("classify", tmp_path / "a.png", "--labels", "dog"),
        ("eval", tmp_path),
        ("add", tmp_path),
    ):
        line = fail(verb, where, *words)
        assert "is known by name alone and cannot be loaded here: give queries as arrays" in line
    # The same embeddings again are the same, and those of another encoder are refused.
    assert succeed("import", exported, "-o", where, *NAMES).stdout.endswith("skipped: 0\n")
    line = fail("import", exported, "-o", where, *NAMES[:2], "--text-encoder-name", "another")
    assert "holds text embeddings of mine (name mine), not of another (name another)" in line
    assert len(stores.newest(store.open_store(where))[1]) == 7


def test_what_cannot_be_imported(exported, tmp_path):
    def refused(*options, folder=exported):
        line = fail("import", folder, "-o", tmp_path / "imported", *options)
        assert not (tmp_path / "imported").exists()
        return line

    assert "give --text-encoder or --text-encoder-name" in refused(*NAMES[:2])
    assert "holds no speech: image, text" in refused(*NAMES, "--encoder-name", "speech=mine")
    assert "k must lie between 1 and the number of pairs: got k=8, 7" in refused(*NAMES, "--k", 8)
    assert "the method cca takes no k" in refused(*NAMES, "--method", "cca", "--k", 2)
    assert "no such folder" in refused(*NAMES, folder=tmp_path / "gone")
    (tmp_path / "imported").mkdir()
    (tmp_path / "imported" / "thesis.tex").touch()
    assert "holds other files" in fail("import", exported, "-o", tmp_path / "imported", *NAMES)


def test_dimensions_are_those_of_the_encoder(exported, installed_encoder, tmp_path):
    installed_encoder("efficientnet-lite2")
    options = ("--image-encoder", "efficientnet-lite2", *NAMES[2:])
    line = fail("import", exported, "-o", tmp_path / "imported", *options)
    assert "image embeddings of 8 dimensions: efficientnet-lite2 gives 1280" in line
    assert not (tmp_path / "imported").exists()


def test_an_export_knows_its_encoders(tmp_path):
    store.save(tmp_path / "model", captioned())
    succeed("export", tmp_path / "model", "-o", tmp_path / "made", "--form", "safetensors")
    succeed("import", tmp_path / "made", "-o", tmp_path / "imported")
    first, second = (store.load(tmp_path / name) for name in ("model", "imported"))
    assert first.encoders == second.encoders
    for modality, array in first.anchors.embeddings.items():
        np.testing.assert_array_equal(array, second.anchors.embeddings[modality])
    shutil.rmtree(tmp_path / "imported")
    renamed = ("--image-encoder-name", "another")
    succeed("import", tmp_path / "made", "-o", tmp_path / "imported", *renamed)
    assert store.load(tmp_path / "imported").encoders["image"].source == "another"
