import os
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tfds_sets import WORDS, pictures, prepare

from asif_jax.data import read_set
from asif_jax.data.sources.tfds import read_tfds

FEATURES = tfds.features


def labelled(tmp_path, **splits):
    paths = pictures(tmp_path / "pictures", max(splits.values()))
    prepare(
        "toy_colors",
        {
            "image": FEATURES.Image(shape=(None, None, 3)),
            "label": FEATURES.ClassLabel(names=["deep_red", "LeafGreen", "blue"]),
            "coarse": FEATURES.ClassLabel(names=["warm", "cold"]),
            "file_name": FEATURES.Text(),
        },
        {
            split: [
                {"image": p, "label": i % 3, "coarse": int(i % 3 > 0), "file_name": f"{i}"}
                for i, p in enumerate(paths[:count])
            ]
            for split, count in splits.items()
        },
        tmp_path / "tfds",
        supervised_keys=("image", "label"),
    )
    return tmp_path / "tfds"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return labelled(tmp_path_factory.mktemp("labelled"), train=12, test=6)


def test_a_set_is_read_by_name(data_dir):
    found = read_set("tfds:toy_colors", data_dir=data_dir)
    assert found.size == 6
    assert found.classes == ("deep red", "leaf green", "blue")
    assert "test" in found.source
    seen = []
    for index in range(6):
        example = found.read(index)
        seen.append(example.label)
        color = Image.new("RGB", example.image.size, WORDS[example.label])
        np.testing.assert_array_equal(np.asarray(example.image), np.asarray(color))
        assert (example.captions, example.items) == ((), {})
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]


def test_tensorflow_is_not_needed(data_dir):
    read_tfds("toy_colors", data_dir=data_dir).read(0)
    assert "tensorflow" not in sys.modules


def test_splits_slices_and_features(data_dir):
    assert read_tfds("toy_colors", split="train", data_dir=data_dir).size == 12
    part = read_tfds("toy_colors:1.0.0", split="train[:5]", data_dir=data_dir)
    assert part.size == 5
    coarse = read_tfds("toy_colors", feature="coarse", data_dir=data_dir)
    assert coarse.classes == ("warm", "cold")
    names = read_tfds("toy_colors", feature="file_name", data_dir=data_dir)
    assert names.classes == ()
    assert {names.read(index).captions for index in range(6)} == {(str(i),) for i in range(6)}
    identities = {found.identity for found in (part, coarse, names)}
    assert len(identities) == 3


def test_the_identity_follows_the_files(tmp_path):
    directory = labelled(tmp_path, test=3)
    first, again = (read_tfds("toy_colors", data_dir=directory) for _ in range(2))
    assert first.identity == again.identity
    (shard,) = directory.rglob("*.array_record*")
    os.utime(shard, ns=(0, 12345))
    assert read_tfds("toy_colors", data_dir=directory).identity != first.identity


def test_records_of_damaged_files_are_named(tmp_path):
    directory = labelled(tmp_path, test=3)
    (shard,) = directory.rglob("*.array_record*")
    shard.write_bytes(shard.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="toy_colors test:0: record cut short or damaged"):
        read_tfds("toy_colors", data_dir=directory)


def test_a_test_split_without_labels_gives_way_to_validation(tmp_path):
    paths = pictures(tmp_path / "pictures", 4)
    features = {"image": FEATURES.Image(), "label": FEATURES.ClassLabel(names=["a", "b"])}
    hidden = [{"image": path, "label": -1} for path in paths]
    shown = [{"image": path, "label": index % 2} for index, path in enumerate(paths[:3])]
    splits = {"test": hidden, "validation": shown}
    prepare("toy_hidden", features, splits, tmp_path)
    assert read_tfds("toy_hidden", data_dir=tmp_path).size == 3
    with pytest.raises(ValueError, match="no label"):
        read_tfds("toy_hidden", split="test", data_dir=tmp_path).read(0)


@pytest.mark.parametrize(
    ("name", "feature", "values", "expected"),
    [
        ("captions", FEATURES.Sequence({"text": np.str_, "id": np.int64}),
         [[{"text": f"Café  {j}", "id": j} for j in range(i + 1)] for i in range(3)],
         [tuple(f"Café {j}" for j in range(i + 1)) for i in range(3)]),
        ("alt", FEATURES.Text(), ["a\nb", "c", "d"], [("a b",), ("c",), ("d",)]),
        ("Caption", FEATURES.Sequence(FEATURES.Text()), [["a", " "], ["b"], ["c", "d"]],
         [("a",), ("b",), ("c", "d")]),
    ],
)  # fmt: skip
def test_captions_under_any_name(tmp_path, name, feature, values, expected):
    paths = pictures(tmp_path / "pictures", 3, suffix="jpg")
    features = {
        "picture": FEATURES.Image(encoding_format="jpeg"),
        name: feature,
        "objects": FEATURES.Sequence({"label": FEATURES.ClassLabel(names=["x"])}),
    }
    records = [
        {"picture": path, name: value, "objects": []}
        for path, value in zip(paths, values, strict=True)
    ]
    prepare("toy_captions", features, {"val": records}, tmp_path / "tfds")
    found = read_set("tfds:toy_captions", data_dir=tmp_path / "tfds")
    assert found.classes == ()
    assert sorted(found.read(index).captions for index in range(3)) == sorted(expected)


def test_captions_are_preferred_to_unsupervised_labels(tmp_path):
    (path,) = pictures(tmp_path / "pictures", 1)
    features = {
        "image": FEATURES.Image(),
        "caption": FEATURES.Text(),
        "other": FEATURES.Text(),
        "safe": FEATURES.ClassLabel(names=["yes", "no"]),
    }
    record = {"image": path, "caption": "", "other": "x", "safe": 1}
    prepare("toy_web", features, {"train": [record]}, tmp_path)
    found = read_tfds("toy_web", data_dir=tmp_path)
    assert found.classes == ()
    with pytest.raises(ValueError, match="no caption"):
        found.read(0)
    assert read_tfds("toy_web", feature="safe", data_dir=tmp_path).read(0).label == 1


@pytest.mark.parametrize(
    ("captions", "reason"),
    [(["fine", "x" * 2**20], "caption of 1,048,576 characters"), ([" "], "no caption")],
)
def test_captions_that_are_none_are_named_on_reading(tmp_path, captions, reason):
    (path,) = pictures(tmp_path / "pictures", 1)
    features = {"image": FEATURES.Image(), "captions": FEATURES.Sequence(FEATURES.Text())}
    prepare("toy_long", features, {"test": [{"image": path, "captions": captions}]}, tmp_path)
    with pytest.raises(ValueError, match=f"^toy_long/1.0.0 test:0: {reason}$"):
        read_tfds("toy_long", data_dir=tmp_path).read(0)


def test_captions_of_any_script_and_byte(tmp_path):
    (path,) = pictures(tmp_path / "pictures", 1)
    features = {"image": FEATURES.Image(), "captions": FEATURES.Sequence(FEATURES.Text())}
    captions = ["一只猫 🐕", "كلب\u2028собака", "zero\0byte"]
    prepare("toy_scripts", features, {"test": [{"image": path, "captions": captions}]}, tmp_path)
    found = read_tfds("toy_scripts", data_dir=tmp_path)
    assert found.read(0).captions == ("一只猫 🐕", "كلب собака", "zero\0byte")


def test_coco_captions(tmp_path):
    """TFDS's own code for this set requires TensorFlow; the prepared files do not."""
    box = {"id": np.int64, "area": np.int64, "bbox": FEATURES.BBoxFeature(), "is_crowd": np.bool_}
    features = {
        "image": FEATURES.Image(encoding_format="jpeg"),
        "image/filename": FEATURES.Text(),
        "image/id": np.int64,
        "objects": FEATURES.Sequence({**box, "label": FEATURES.ClassLabel(num_classes=80)}),
        "captions": FEATURES.Sequence({"text": np.str_, "id": np.int64}),
    }
    paths = pictures(tmp_path / "pictures", 3, suffix="jpg")
    records = [
        {
            "image": path,
            "image/filename": f"{index}.jpg",
            "image/id": index,
            "objects": [],
            "captions": [{"text": f"Caption {index} {j}.", "id": j} for j in range(5 - index)],
        }
        for index, path in enumerate(paths)
    ]
    splits = {"test": records[:2], "restval": records}
    prepare("coco_captions", features, splits, tmp_path, config="2014")
    expected = {tuple(f"Caption {i} {j}." for j in range(5 - i)) for i in range(3)}

    def captions(**options):
        found = read_set("tfds:coco_captions", data_dir=tmp_path, **options)
        assert found.classes == ()
        return {found.read(index).captions for index in range(found.size)}

    assert captions(split="restval") == expected
    assert captions() == {texts for texts in expected if len(texts) > 3}
    assert len(captions(split="restval[1:]")) == 2
    assert captions(split="restval", feature="captions") == expected
    assert captions(feature="image/filename") == {("0.jpg",), ("1.jpg",)}


PAPER = {
    "cifar100": ("test", {"id": "", "coarse_label": 0}),
    "eurosat": ("train", {"filename": ""}),
    "imagenet2012": ("validation", {"file_name": ""}),
    "imagenet_v2": ("test", {"file_name": ""}),
    "oxford_iiit_pet": (
        "test",
        {"species": 1, "file_name": "", "head_bbox": FEATURES.BBox(0.0, 0.0, 1.0, 1.0)},
    ),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_sets_of_the_paper(tmp_path, name):
    """A few records of our own under the real name, features, version and configuration."""
    split, others = PAPER[name]
    real = tfds.builder_cls(name)
    features = real(data_dir=str(tmp_path)).info.features
    size = 32 if name == "cifar100" else 64
    suffix = "png" if name == "cifar100" else "jpg"
    for label, color in enumerate(WORDS):
        Image.new("RGB", (size, size), color).save(tmp_path / f"{label}.{suffix}")
    Image.new("L", (size, size)).save(tmp_path / "mask.png")
    masks = {key: str(tmp_path / "mask.png") for key in features if key.endswith("_mask")}
    records = [
        {"image": str(tmp_path / f"{label}.{suffix}"), "label": label, **masks, **others}
        for label in range(3)
    ]

    class Few(real, skip_registration=True):
        @classmethod
        def get_metadata(cls):
            return real.get_metadata()

        def _split_generators(self, _):
            return {split: enumerate(records)}

    Few.name = name
    Few(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    found = read_tfds(name, data_dir=tmp_path)
    assert found.classes == tuple(features["label"].names)
    for index in range(3):
        example = found.read(index)
        expected = Image.new("RGB", (size, size), WORDS[example.label])
        np.testing.assert_allclose(np.asarray(example.image), np.asarray(expected), atol=3)
    if name.startswith("imagenet"):
        with pytest.raises(ValueError, match="WordNet ids"):
            read_set(f"tfds:{name}", data_dir=tmp_path)
        names = [f"{synset}\tclass {index}" for index, synset in enumerate(found.classes)]
        (tmp_path / "names.txt").write_text("\n".join(names))
        named = read_set(f"tfds:{name}", data_dir=tmp_path, labels_file=tmp_path / "names.txt")
        assert named.classes[:2] == ("class 0", "class 1")


def test_unusable_sets_are_named(tmp_path, data_dir):
    with pytest.raises(ValueError, match=r"no TFDS set toy_colours in .*"):
        read_tfds("toy_colours", data_dir=data_dir)
    with pytest.raises(ValueError, match=r"cifar100 is not prepared in .*array_record"):
        read_tfds("cifar100", data_dir=tmp_path)
    with pytest.raises(ValueError, match="Unknown split 'dev'"):
        read_tfds("toy_colors", split="dev", data_dir=data_dir)
    with pytest.raises(ValueError, match=r"no label or text 'image' among \['coarse'"):
        read_tfds("toy_colors", feature="image", data_dir=data_dir)
    with pytest.raises(ValueError, match="name"):
        read_tfds("Toy Colors!", data_dir=data_dir)


def test_doubts_are_not_guessed_away(tmp_path):
    a, b = pictures(tmp_path / "pictures", 2)
    image, text = FEATURES.Image(), FEATURES.Text()
    record = {"left": a, "right": b, "x": "x", "y": "y"}
    features = {"left": image, "right": image, "x": text, "y": text}
    prepare("toy_twins", features, {"a": [record], "b": [record]}, tmp_path)
    with pytest.raises(ValueError, match="no feature that is clearly the image"):
        read_tfds("toy_twins", data_dir=tmp_path)
    record = {"image": a, "x": "x", "y": "y"}
    features = {"image": image, "x": text, "y": text}
    prepare("toy_texts", features, {"a": [record], "b": [record]}, tmp_path)
    with pytest.raises(ValueError, match=r"which feature to use: \['x', 'y'\]"):
        read_tfds("toy_texts", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"which split to use: \['a', 'b'\]"):
        read_tfds("toy_texts", feature="x", data_dir=tmp_path)
    prepare("toy_numbers", {"image": image, "n": np.int64},
            {"a": [{"image": a, "n": 1}]}, tmp_path)  # fmt: skip
    with pytest.raises(ValueError, match="neither labels nor captions"):
        read_tfds("toy_numbers", data_dir=tmp_path)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'asif-jax\[data\]'"):
        read_tfds("toy_colors")
