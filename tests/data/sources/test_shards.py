import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asif_jax.data import Example, Skipped
from asif_jax.data.image_set import file_state
from asif_jax.data.sources.shards import locate, set_of_shards, shard_files, trouble_with

NAMES = re.compile(r"\.box$")


def build(source, files, sizes, skipped=()):
    return set_of_shards(
        source,
        files,
        sizes,
        read=lambda number, row: Example(Image.new("RGB", (1, 1)), captions=(f"{number} {row}",)),
        place=lambda number, row: Path(f"{files[number]}:{row}"),
        skipped=skipped,
    )


def test_every_item_is_located():
    sizes = [2, 0, 3, 0, 1]
    expected = [(part, item) for part, size in enumerate(sizes) for item in range(size)]
    ends = np.cumsum(sizes)
    assert [locate(ends, index) for index in range(6)] == expected
    for index in (-1, 6):
        with pytest.raises(IndexError, match=f"no item {index} among 6"):
            locate(ends, index)


def test_files_are_found_at_any_depth_and_sorted(tmp_path):
    (tmp_path / "b" / "folder.box").mkdir(parents=True)
    for name in ("b/1.box", "a.box", "c.box", "a.txt", ".hidden.box"):
        (tmp_path / name).touch()
    (tmp_path / "dangling.box").symlink_to("nowhere")
    found = shard_files(tmp_path, NAMES)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.box", "b/1.box", "c.box"]
    assert shard_files(tmp_path / "a.txt", NAMES) == [tmp_path / "a.txt"]
    with pytest.raises(ValueError, match="no such file or folder"):
        shard_files(tmp_path / "gone.box", NAMES)


def test_a_set_of_shards(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for path in files:
        path.touch()
    found = build(tmp_path, files, [2, 0, 1])
    assert found.size == 3
    assert [found.read(index).captions for index in range(3)] == [("0 0",), ("0 1",), ("2 0",)]
    assert found.place(2) == tmp_path / "c:0"
    assert found.source == str(tmp_path)
    assert build(files[0], files[:1], [2]).source == str(files[0])


def test_the_identity_is_that_of_the_files(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for path in files:
        path.write_bytes(b"1")
    first = build(tmp_path, files, [1, 1]).identity
    assert build(tmp_path, files, [1, 1]).identity == first
    os.utime(files[1], ns=(0, 12345))
    touched = build(tmp_path, files, [1, 1]).identity
    files[1] = files[1].rename(tmp_path / "c")
    assert len({first, touched, build(tmp_path, files, [1, 1]).identity}) == 3


def test_nothing_usable_is_said_with_the_first_cause(tmp_path):
    with pytest.raises(ValueError, match="no images with captions in"):
        build(tmp_path, [], [])
    skipped = [Skipped(Path("a"), "broken"), Skipped(Path("b"), "odd")]
    with pytest.raises(ValueError, match="2 skipped, the first being a: broken"):
        build(tmp_path, [tmp_path], [0], skipped)


def test_a_changed_file_is_noticed(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    state = file_state(path)
    assert trouble_with(path, state) == ""
    path.write_bytes(b"12")
    assert "written anew" in trouble_with(path, state)
    path.unlink()
    assert trouble_with(path, state) == "unreadable: No such file or directory"
