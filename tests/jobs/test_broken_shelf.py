"""All kinds of broken input at once, from a tar file through the job into a store."""

import io
import json
import struct
import tarfile
import zlib

import pytest
import toy
from PIL import Image

from asif_jax import store
from asif_jax.data import read_set
from asif_jax.jobs.embedding import into_store

SCRIPTS = ("Ein roter Käfer.", "赤い犬。", "كلب أحمر", "כלב אדום", "लाल कुत्ता", "🐕 red")


def picture(kind="png"):
    content = io.BytesIO()
    Image.new("RGB", (6, 4), (250, 0, 0)).save(content, kind)
    return content.getvalue()


def bomb():
    """A PNG of a few hundred bytes that says it is 50,000 x 50,000."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


BROKEN = {
    "cut.jpg": (picture("jpeg")[:200], "cut short or damaged"),
    "bomb.png": (bomb(), "too many pixels"),
    "empty.jpg": (b"", "not an image, or an empty file"),
    "text.jpg": (b"no image at all", "not an image, or an empty file"),
}


def write_shelf(path):
    """A tar file that ends in the middle of its last sample."""
    members = []
    for index, caption in enumerate(SCRIPTS):
        # Half of the good images are of another format than their names say.
        name, kind = f"good{index}.jpg", ("jpeg", "png")[index % 2]
        members += [(name, picture(kind)), (f"good{index}.json", json.dumps({"caption": caption}))]
    for name, (content, _) in BROKEN.items():
        members += [(name, content), (f"{name.split('.')[0]}.txt", "A red thing.")]
    members += [("latin.png", picture()), ("latin.txt", "Käfer".encode("latin-1"))]
    members += [("long.png", picture()), ("long.txt", "red " * 2**18)]
    members += [("good0.png", picture()), ("good0.txt", "A key that came before.")]
    members += [("alone.png", picture()), ("last.png", picture()), ("last.txt", "red")]
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        end = tar.offset - 511
    with path.open("r+b") as file:
        file.truncate(end)


def create(where):
    encoders = toy.encoders()
    records = {m: store.EncoderRecord(e.name, e.identity) for m, e in encoders.items()}
    return store.create(
        where, store.Header(records, {"image": 3, "text": 3}, several=("text",))
    ), encoders


def test_each_is_skipped_named_and_counted_and_the_job_goes_on(tmp_path):
    shelf = tmp_path / "shelf.tar"
    write_shelf(shelf)
    opened, encoders = create(tmp_path / "store")
    images = read_set(str(shelf))
    done = into_store.embed_into(opened, images, encoders, most_skipped=0.9, progress=False)
    assert done.added == len(SCRIPTS)
    model = store.load(tmp_path / "store")
    assert [pair.captions for pair in model.pairs] == [(caption,) for caption in SCRIPTS]
    reasons = {item.path.name.removeprefix("shelf.tar:"): item.reason for item in done.skipped}
    expected = {name: reason for name, (_, reason) in BROKEN.items()}
    expected |= {
        "latin.png": "caption is not UTF-8",
        "long.png": "caption of 1,048,575 characters",
        "good0.png": "its key came before",
        "alone.png": "no caption",
        "last.txt": "cut short",
    }
    assert expected.keys() <= reasons.keys()
    for name, reason in expected.items():
        assert reasons[name].startswith(reason), (name, reasons[name])
    again = into_store.embed_into(opened, images, encoders, most_skipped=0.9, progress=False)
    assert (again.added, again.skipped) == (0, done.skipped)


def test_too_large_a_share_stops_the_job_and_says_so(tmp_path):
    write_shelf(tmp_path / "shelf.tar")
    opened, encoders = create(tmp_path / "store")
    images = read_set(str(tmp_path / "shelf.tar"))
    with pytest.raises(
        ValueError, match=r"6 of 12 images could not be used.*the first: .*:cut\.jpg"
    ):
        into_store.embed_into(opened, images, encoders, most_skipped=0.3, progress=False)
    assert not store.snapshot(opened).live.any()
