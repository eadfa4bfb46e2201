import contextlib
import sys

import numpy as np
import pytest

from asif_jax import encoders

MODULE = """
import numpy as np
from asif_jax.encoders import Encoder

def encoder():
    return Encoder(
        lambda params, batch: batch * params,
        np.float32(2.0),
        lambda items: np.asarray([[len(item)] for item in items], np.float32),
        modality="speech", name="lengths", dimension=1, identity="lengths, version 1",
    )

class Models:
    small = encoder

def nothing():
    return None

def failing():
    raise RuntimeError("no microphone")

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory, with a module; what was imported from it is forgotten again."""
    before = set(sys.modules)
    (tmp_path / "my_speech.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("import my_missing\n")
    (tmp_path / "my_garbled.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["my_speech:encoder", "my_speech:Models.small"])
@pytest.mark.parametrize("modality", ["speech", None])
def test_a_function_gives_an_encoder_of_any_modality(name, modality):
    encoder = encoders.load(name, modality=modality)
    assert (encoder.modality, encoder.name) == ("speech", "lengths")
    embedded = encoder.apply(encoder.params, encoder.preprocess(["abc", "a"]))
    np.testing.assert_array_equal(embedded, [[6.0], [2.0]])


def test_modules_in_packages_are_found(folder):
    (folder / "my_package").mkdir()
    (folder / "my_speech.py").rename(folder / "my_package" / "speech.py")
    assert encoders.load("my_package.speech:encoder").name == "lengths"


@pytest.mark.parametrize("name", ["my_speech:encoder", "my_broken:encoder"])
def test_the_current_directory_is_importable_no_longer_than_needed(name):
    before = list(sys.path)
    with contextlib.suppress(ValueError):
        encoders.load(name)
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "my_absent:encoder",
            "cannot import my_absent: ModuleNotFoundError: No module named",
        ),
        ("my_broken:encoder", "cannot import my_broken: .* No module named 'my_missing'"),
        ("my_garbled:encoder", "cannot import my_garbled: SyntaxError: "),
        ("my_speech:absent", "my_speech has no function absent"),
        ("my_speech:number", "my_speech has no function number"),
        ("my_speech:encoder.absent", "my_speech has no function encoder.absent"),
        ("my_speech:nothing", "must return an asif_jax.encoders.Encoder: it returned a NoneType"),
    ],
)
def test_what_gives_no_encoder_is_named_in_one_line(name, message):
    with pytest.raises(ValueError, match=f"^{name}:? {message}") as caught:
        encoders.load(name, modality="speech")
    assert "\n" not in str(caught.value)


def test_another_modality_is_refused():
    with pytest.raises(ValueError, match=r"^my_speech:encoder encodes speech, not text$"):
        encoders.load("my_speech:encoder", modality="text")


def test_what_the_function_raises_is_passed_on():
    with pytest.raises(RuntimeError, match="no microphone"):
        encoders.load("my_speech:failing")


def test_options_of_checkpoints_are_refused():
    with pytest.raises(ValueError, match="is a function, so revision and prompt cannot be chosen"):
        encoders.load("my_speech:encoder", revision="v1", prompt="query")
