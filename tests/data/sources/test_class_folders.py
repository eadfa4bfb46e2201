import os

import numpy as np
import pytest
from PIL import Image

from asif_jax.data import read_set

COLORS = ("red", "green", "blue")


def write_classes(directory, *, each=2):
    for color in COLORS:
        for index in range(each):
            path = directory / color / "deep" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 4), color).save(path)
    return directory


def test_folders_are_classes_sorted_by_name(tmp_path):
    found = read_set(str(write_classes(tmp_path)))
    assert found.classes == ("blue", "green", "red")
    assert [found.read(index).label for index in range(found.size)] == [0, 0, 1, 1, 2, 2]
    for index in range(found.size):
        example = found.read(index)
        color = np.asarray(Image.new("RGB", (6, 4), found.classes[example.label]))
        np.testing.assert_array_equal(np.asarray(example.image), color)
        assert found.place(index).parts[-3] == found.classes[example.label]
    assert found.skipped == ()


def test_images_outside_the_classes_are_named(tmp_path):
    write_classes(tmp_path)
    Image.new("RGB", (2, 2)).save(tmp_path / "stray.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / ".hidden" / "a.png")
    found = read_set(str(tmp_path))
    assert found.classes == ("blue", "green", "red")
    assert [(item.path.name, item.reason) for item in found.skipped] == [
        ("stray.png", "in no folder of a class")
    ]


def test_the_identity_follows_the_content(tmp_path):
    first = read_set(str(write_classes(tmp_path)))
    assert read_set(str(tmp_path)).identity == first.identity
    path = first.place(0)
    os.utime(path, ns=(0, 12345))
    touched = read_set(str(tmp_path)).identity
    path.rename(path.with_name("another.png"))
    assert len({first.identity, touched, read_set(str(tmp_path)).identity}) == 3
    assert read_set(str(tmp_path)).source == first.source


def test_a_captioned_folder_is_one_unless_labels_are_given(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "red" / "deep" / "0.txt").write_text("A red thing.")
    found = read_set(str(tmp_path))
    assert (found.size, found.classes, len(found.skipped)) == (1, (), 5)
    assert found.read(0).captions == ("A red thing.",)
    assert found.read(0).label == -1
    labels = tmp_path / "labels.txt"
    labels.write_text("sky\ngrass\n\ntomato\n")
    assert read_set(str(tmp_path), labels_file=labels).classes == ("sky", "grass", "tomato")


def test_metadata_makes_a_folder_captioned(tmp_path):
    write_classes(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,caption\nred/deep/1.png,One.\n")
    found = read_set(str(tmp_path))
    assert found.read(0).captions == ("One.",)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        read_set(str(tmp_path), labels_file=labels)


def test_an_unreadable_image_is_an_error_that_names_it(tmp_path):
    found = read_set(str(write_classes(tmp_path)))
    found.place(1).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1\.png: not an image"):
        found.read(1)


def test_unusable_sources(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        read_set(str(tmp_path / "gone"))
    (tmp_path / "one").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "one" / "a.png")
    with pytest.raises(ValueError, match="at least two that hold images, and 1 is there"):
        read_set(str(tmp_path))
    with pytest.raises(ValueError, match="is no TFDS set"):
        read_set(str(tmp_path), split="test")
