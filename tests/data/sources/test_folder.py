import csv
import json
import os

import pytest
from PIL import Image

from asif_jax.data import read_folder, read_set


def add_image(path, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), color).save(path)
    return path


def write_jsonl(directory, *rows):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (directory / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_sidecars_are_read_in_order_at_any_depth(tmp_path):
    for name in ("b.JPG", "a.png", "deep/er/c.webp"):
        path = add_image(tmp_path / name)
        path.with_suffix(".txt").write_text(f" The picture\n{path.stem}. ")
    pairs, skipped = read_folder(tmp_path)
    assert [pair.image.name for pair in pairs] == ["a.png", "b.JPG", "c.webp"]
    assert pairs[0].captions == ("The picture a.",)
    assert [pair.group for pair in pairs] == ["", "", "deep"]
    assert skipped == ()


@pytest.mark.parametrize("key", ["caption", "captions", "text", "texts"])
@pytest.mark.parametrize("value", ["A dog.", ["A dog.", " Two\tdogs. ", "A dog."]])
def test_jsonl_keys_and_lists(tmp_path, key, value):
    add_image(tmp_path / "images" / "a.png")
    write_jsonl(tmp_path, {"file_name": "images/a.png", key: value})
    (pair,) = read_folder(tmp_path).pairs
    expected = ("A dog.",) if isinstance(value, str) else ("A dog.", "Two dogs.")
    assert pair.captions == expected
    assert pair.group == "images"


def test_csv_rows_of_one_image_are_one_pair(tmp_path):
    add_image(tmp_path / "a.png")
    add_image(tmp_path / "b.png")
    text = '\ufefffile_name,caption\na.png,"One, two."\nb.png,Bee.\na.png,Three.\n'
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    pairs, skipped = read_folder(tmp_path)
    assert [(p.image.name, p.captions) for p in pairs] == [
        ("a.png", ("One, two.", "Three.")),
        ("b.png", ("Bee.",)),
    ]
    assert not skipped


def test_captions_in_every_script_survive(tmp_path):
    captions = ["Ein Käfer.", "一只猫", "كلب", "🐕 собака"]
    add_image(tmp_path / "a.png")
    write_jsonl(tmp_path, {"file_name": "a.png", "captions": captions})
    assert read_folder(tmp_path).pairs[0].captions == tuple(captions)


def test_zero_bytes_and_halves_of_characters_do_no_harm(tmp_path):
    add_image(tmp_path / "a.png")
    write_jsonl(tmp_path, '{"file_name": "a.png", "caption": "zero\\u0000 half\\udc00"}')
    found = read_set(str(tmp_path))
    assert found.read(0).captions == ("zero\0 half\ufffd",)


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_csv_row_ends_at_the_end_of_its_line_alone(tmp_path, quote):
    for name in ("a.png", "b.png", "c.png"):
        add_image(tmp_path / name)
    long = "x" * 2**18
    rows = f"a.png,{quote}one\u2028two\x85three{quote}\r\nb.png,{long}\nc.png,Sea.\n"
    (tmp_path / "metadata.csv").write_bytes(f"file_name,caption\n{rows}".encode())
    limit = csv.field_size_limit()
    pairs, skipped = read_folder(tmp_path)
    assert [pair.captions for pair in pairs] == [("one two three",), ("Sea.",)]
    assert [item.reason for item in skipped] == ["caption of 262,144 characters"]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{not json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"file_name": ' + "9" * 10_000 + "}", "not JSON"),
        ('"a string"', "not a JSON object"),
        ({"caption": "A dog."}, "no file_name"),
        ({"file_name": "gone.png", "caption": "A dog."}, "no such image"),
        ({"file_name": "../a.png", "caption": "A dog."}, "outside the folder"),
        ({"file_name": "/etc/a.png", "caption": "A dog."}, "outside the folder"),
        ({"file_name": "a.png"}, "no caption"),
        ({"file_name": "a.png", "caption": "   "}, "no caption"),
        ({"file_name": "a.png", "captions": [None, 3]}, "no caption"),
        ({"file_name": "a.png", "caption": "x" * 2**20}, "caption of 1,048,576 characters"),
        ({"file_name": "a.png", "captions": ["x", "y" * 10_001]}, "caption of 10,001 characters"),
        ({"file_name": "a\0.png", "caption": "A dog."}, "no such image"),
        ({"file_name": "\ud800.png", "caption": "A dog."}, "no such image"),
    ],
)
def test_a_bad_row_is_skipped_and_named(tmp_path, row, reason):
    add_image(tmp_path / "good.png")
    add_image(tmp_path / "a.png")
    write_jsonl(tmp_path, row, {"file_name": "good.png", "caption": "Good."})
    pairs, skipped = read_folder(tmp_path)
    assert [pair.image.name for pair in pairs] == ["good.png"]
    assert len(skipped) == 1
    assert reason in skipped[0].reason


def test_images_without_usable_captions_are_skipped(tmp_path):
    for name in ("empty", "latin", "none", "good"):
        add_image(tmp_path / f"{name}.png")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "good.txt").write_text("Good.")
    pairs, skipped = read_folder(tmp_path)
    assert [pair.captions for pair in pairs] == [("Good.",)]
    assert {item.path.stem: item.reason for item in skipped} == {
        "empty": "no caption",
        "latin": "caption is not UTF-8",
        "none": "no caption file",
    }


def test_an_image_without_permission_is_skipped(tmp_path, monkeypatch):
    for name in ("locked", "open"):
        add_image(tmp_path / f"{name}.png").with_suffix(".txt").write_text("Caption.")
    access = os.access
    # Permission bits do not bind root, under which tests often run.
    monkeypatch.setattr(os, "access", lambda p, mode: p.stem != "locked" and access(p, mode))
    pairs, skipped = read_folder(tmp_path)
    assert [pair.image.stem for pair in pairs] == ["open"]
    assert skipped[0].reason == "no permission to read it"


def test_unusable_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such folder: .*gone"):
        read_folder(tmp_path / "gone")
    with pytest.raises(ValueError, match="no images with captions"):
        read_folder(tmp_path)
    file = add_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="not a folder"):
        read_folder(file)
    with pytest.raises(ValueError, match=r"1 skipped.*a\.png: no caption file"):
        read_folder(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"file_name,caption\na.png,\xff\n")
    with pytest.raises(ValueError, match=r"metadata\.csv is not UTF-8"):
        read_folder(tmp_path)


def write_spoken(directory, *rows):
    for name in ("a", "b"):
        add_image(directory / f"{name}.png")
        (directory / f"{name}.wav").write_bytes(name.encode())
    write_jsonl(directory, *rows)


def spoken(name, speech, caption="A dog."):
    return {"file_name": f"{name}.png", "caption": caption, "speech": speech}


def test_files_of_further_modalities_are_read_when_asked_for(tmp_path, monkeypatch):
    write_spoken(tmp_path, {**spoken("a", "a.wav"), "depth": "b.wav"}, spoken("b", "b.wav"))
    found = read_set(str(tmp_path), modalities=("speech",))
    assert found.modalities == ("speech",)
    assert [found.read(index).items for index in range(2)] == [
        {"speech": tmp_path / "a.wav"},
        {"speech": tmp_path / "b.wav"},
    ]
    assert found.read(0).captions == ("A dog.",)
    unasked = read_set(str(tmp_path))
    assert (unasked.modalities, unasked.read(0).items) == ((), {})
    both = read_set(str(tmp_path), modalities=("speech", "depth"))
    assert both.read(0).items == {"speech": tmp_path / "a.wav", "depth": tmp_path / "b.wav"}
    assert [(item.path.name, item.reason) for item in both.skipped] == [
        ("metadata.jsonl:2", "no depth")
    ]
    monkeypatch.chdir(tmp_path)
    relative = read_set(".", modalities=("speech",))
    assert relative.read(0).items == {"speech": tmp_path / "a.wav"}
    assert relative.identity == found.identity


def test_the_identity_follows_the_files_of_every_modality(tmp_path):
    write_spoken(tmp_path, spoken("a", "a.wav"))

    def identity(**options):
        return read_set(str(tmp_path), **options).identity

    spoken_before, unspoken = identity(modalities=("speech",)), identity()
    os.utime(tmp_path / "a.wav", ns=(0, 12345))
    assert identity() == unspoken
    assert len({spoken_before, unspoken, identity(modalities=("speech",))}) == 3


@pytest.mark.parametrize(
    ("speech", "reason"),
    [
        (None, "no speech"),
        ("", "no speech"),
        (["a.wav"], "no speech"),
        ("../a.wav", "speech leads outside the folder: ../a.wav"),
        ("/etc/passwd", "speech leads outside the folder: /etc/passwd"),
        ("gone.wav", "no such speech file"),
        ("zero\0.wav", "no such speech file"),
    ],
)
def test_a_row_without_its_further_file_is_skipped_and_named(tmp_path, speech, reason):
    write_spoken(tmp_path, spoken("a", speech), spoken("b", "b.wav"))
    pairs, skipped = read_folder(tmp_path, modalities=("speech",))
    assert [pair.image.name for pair in pairs] == ["b.png"]
    assert [item.reason for item in skipped] == [reason]
    assert len(read_folder(tmp_path).pairs) == 2


def test_rows_of_one_image_must_have_the_same_further_files(tmp_path):
    rows = (
        spoken("a", "a.wav", "One."),
        spoken("a", "b.wav", "Two."),
        spoken("a", "a.wav", "Three."),
    )
    write_spoken(tmp_path, *rows)
    pairs, skipped = read_folder(tmp_path, modalities=("speech",))
    assert [pair.captions for pair in pairs] == [("One.", "Three.")]
    assert [(item.path.name, item.reason) for item in skipped] == [
        ("b.wav", f"{tmp_path / 'a.png'} has another speech already")
    ]


def test_csv_columns_may_be_modalities(tmp_path):
    write_spoken(tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    rows = "file_name,caption,speech\na.png,A dog.,a.wav\nb.png,A cat.,\n"
    (tmp_path / "metadata.csv").write_text(rows)
    pairs, skipped = read_folder(tmp_path, modalities=("speech",))
    assert [pair.items for pair in pairs] == [(("speech", tmp_path / "a.wav"),)]
    assert [item.reason for item in skipped] == ["no speech"]


def test_modalities_that_no_column_can_hold_are_refused(tmp_path):
    write_spoken(tmp_path, spoken("a", "a.wav"))
    for name in ("image", "text", "captions", "file_name"):
        with pytest.raises(ValueError, match=f"'{name}' cannot be a further modality"):
            read_folder(tmp_path, modalities=(name,))
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "a.txt").write_text("A dog.")
    with pytest.raises(ValueError, match=r"no metadata\.jsonl or .* files of 'speech'"):
        read_folder(tmp_path, modalities=("speech",))
    (tmp_path / "train").mkdir()
    write_jsonl(tmp_path / "train", spoken("a", "a.wav"))
    with pytest.raises(ValueError, match=f"but {tmp_path}/train has: name that folder"):
        read_folder(tmp_path, modalities=("speech",))
