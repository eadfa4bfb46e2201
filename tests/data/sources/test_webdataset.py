import gzip
import io
import json
import os
import struct
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from asif_jax.data import images, read_set, read_webdataset
from asif_jax.data.sources import webdataset

LONG = "folder/" * 20


def picture(number=0, *, kind="png", size=(6, 4)):
    content = io.BytesIO()
    Image.new("RGB", size, (number % 256, 50, 100)).save(content, kind)
    return content.getvalue()


def write_tar(path, members, *, form=tarfile.PAX_FORMAT):
    """Members as (name, content), or as TarInfo for what has no content."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(key, number=0, caption=None):
    caption = f"Number {number}." if caption is None else caption
    return [(f"{key}.png", picture(number)), (f"{key}.txt", caption.encode())]


def samples(keys, start=0):
    return [member for number, key in enumerate(keys, start) for member in sample(key, number)]


def special(name, kind, target="good.png"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def png_chunk(named):
    name, content = named
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def red(example):
    return np.asarray(example.image)[0, 0, 0]


def reasons(found):
    return {item.path.name.rpartition(":")[2]: item.reason for item in found.skipped}


def test_shards_are_read_in_order_by_name(tmp_path):
    (tmp_path / "deep").mkdir()
    write_tar(tmp_path / "00001.tar", samples(["a", "b"], start=2))
    write_tar(tmp_path / "00000.tar", samples(["b", "a"]))
    write_tar(tmp_path / "deep" / "0.tar", samples(["c"], start=4))
    (tmp_path / "00000.parquet").write_bytes(b"what img2dataset writes beside")
    (tmp_path / "00000.tar.json").write_bytes(b"{}")
    found = read_webdataset(tmp_path)
    assert (found.size, found.classes, found.skipped) == (5, (), ())
    for index in range(5):
        example = found.read(index)
        assert (red(example), example.captions) == (index, (f"Number {index}.",))
        assert example.label == -1
    assert found.place(0) == tmp_path / "00000.tar:b.png"
    assert found.place(4) == tmp_path / "deep" / "0.tar:c.png"
    with pytest.raises(IndexError):
        found.read(5)
    with pytest.raises(IndexError):
        found.read(-1)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar(tmp_path, form):
    keys = ["000000001", f"{LONG}käfer"]
    found = read_webdataset(write_tar(tmp_path / "a.tar", samples(keys), form=form))
    assert [str(found.place(index)) for index in range(2)] == [
        f"{tmp_path / 'a.tar'}:{key}.png" for key in keys
    ]
    assert [red(found.read(index)) for index in range(2)] == [0, 1]


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp", "gif"])
def test_the_content_of_an_image_counts_not_its_suffix(tmp_path, suffix):
    members = [("1.txt", b"One."), (f"1.{suffix}", picture(7)), ("1.cls", b"3")]
    found = read_webdataset(write_tar(tmp_path / "a.tar", members))
    assert red(found.read(0)) == 7
    assert found.place(0).name == f"a.tar:1.{suffix}"


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([("1.txt", b" From\n text "), ("1.json", b'{"caption": "From JSON"}')], ("From text",)),
        ([("1.json", b'{"caption": "From JSON"}')], ("From JSON",)),
        ([("1.json", b'{"caption": null, "text": "Text"}')], ("Text",)),
        ([("1.json", b'{"caption": ["One", " ", "Two"]}')], ("One", "Two")),
        ([("1.txt", "\ufeff一只猫 🐕 كلب".encode())], ("一只猫 🐕 كلب",)),
        ([("1.json", rb'{"text": "half \ud83d of \ud83d\ude00"}')], ("half \ufffd of 😀",)),
        ([("1.txt", b"zero\0byte")], ("zero\0byte",)),
        ([("1.txt", b"x" * 10_000)], ("x" * 10_000,)),
    ],
)
def test_captions(tmp_path, members, expected):
    members = [("1.jpg", picture()), *members]
    found = read_webdataset(write_tar(tmp_path / "a.tar", members))
    assert found.read(0).captions == expected
    assert found.read(0).captions[0].encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (("1.txt", "café".encode("latin-1")), "caption is not UTF-8"),
        (("1.txt", b"x" * 2**20), "caption of 1,048,576 characters"),
        (("1.json", json.dumps({"text": ["a", "x" * 10_001]}).encode()), "of 10,001 characters"),
        (("1.txt", b" \n"), "no caption"),
        (("1.txt", b""), "no caption"),
        (("1.json", b'{"caption": 3}'), "no caption"),
        (("1.json", b'{"caption": "x'), "not JSON in UTF-8"),
        (("1.json", b"[" * 100_000), "not JSON in UTF-8"),
        (("1.json", b'{"a": ' + b"9" * 10_000 + b"}"), "not JSON in UTF-8"),
        (("1.json", b'["caption"]'), "not a JSON object"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_captions_that_are_none_are_named_on_reading(tmp_path, text, reason):
    members = [("1.jpg", picture()), text, *sample("2", 2)]
    found = read_webdataset(write_tar(tmp_path / "a.tar", members))
    with pytest.raises(ValueError) as error:
        found.read(0)
    assert str(error.value).startswith(f"{found.place(0)}: ")
    assert reason in str(error.value)
    assert found.read(1).captions == ("Number 2.",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image, or an empty file"),
        (b"It is said that this is an image.", "not an image"),
        (picture(size=(80, 80))[:100], "cut short or damaged"),
        (picture(size=(90, 90)), "90 x 90 pixels is too large"),
    ],
    ids=["empty", "text", "cut", "bomb"],
)
def test_images_that_are_none_are_named_on_reading(tmp_path, monkeypatch, content, reason):
    monkeypatch.setattr(images, "_MAX_PIXELS", 8_000)
    members = [("1.jpg", content), ("1.txt", b"One."), *sample("2")]
    found = read_webdataset(write_tar(tmp_path / "a.tar", members))
    with pytest.raises(ValueError) as error:
        found.read(0)
    assert str(error.value).startswith(f"{tmp_path / 'a.tar'}:1.jpg: {reason}")
    assert found.read(1).captions == ("Number 0.",)


def test_a_real_bomb_is_not_unpacked(tmp_path):
    # 20,000 x 20,000 pixels in 50 kB, of one bit each and a byte more per row.
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(20_000 * (20_000 // 8 + 1)), 1)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(map(png_chunk, chunks))
    members = [("1.png", bomb), ("1.txt", b"One.")]
    found = read_webdataset(write_tar(tmp_path / "a.tar", members))
    with pytest.raises(ValueError, match=r"1\.png: .*(too many|too large)"):
        found.read(0)


def test_samples_that_lack_a_part_are_skipped(tmp_path):
    members = [
        ("README", b"about"),
        ("._mac.png", b"hidden"),
        ("no_image.txt", b"x"),
        ("no_caption.png", picture()),
        ("mask.seg.png", picture()),
        ("mask.txt", b"Only a mask."),
        *sample("good"),
    ]
    found = read_webdataset(write_tar(tmp_path / "a.tar", members))
    assert found.size == 1
    assert reasons(found) == {
        "README": "no image",
        "no_image.txt": "no image",
        "no_caption.png": "no caption",
        "mask.seg.png": "no image",
    }


def test_the_first_of_duplicate_keys_counts(tmp_path):
    keys = ["a", "a", "b", "a", "c"]
    first = write_tar(tmp_path / "1.tar", samples(keys))
    found = read_webdataset(first)
    assert [red(found.read(index)) for index in range(found.size)] == [0, 2, 4]
    assert [(str(item.path), item.reason) for item in found.skipped] == [
        (f"{first}:a.png", "its key came before")
    ] * 2
    # Shards number their samples on their own.
    write_tar(tmp_path / "2.tar", samples(["a"], start=9))
    assert read_webdataset(tmp_path).size == 4


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (special("x.png", tarfile.SYMTYPE), "a link, which is not followed"),
        (special("x.png", tarfile.SYMTYPE, "/etc/passwd"), "a link, which is not followed"),
        (special("x.png", tarfile.LNKTYPE), "a link, which is not followed"),
        (special("x.png", tarfile.FIFOTYPE), "not a plain file"),
        (("d/../x.png", picture()), "its path leads outside the tar file"),
        (("../x.png", picture()), "its path leads outside the tar file"),
        (("/x.png", picture()), "its path leads outside the tar file"),
    ],
)
def test_what_is_no_plain_file_is_never_followed(tmp_path, member, reason):
    name = member[0].name if isinstance(member[0], tarfile.TarInfo) else member[0]
    text = (name.replace(".png", ".txt"), b"A caption.")
    members = [*sample("good"), member, text]
    found = read_webdataset(write_tar(tmp_path / "a.tar", members))
    assert found.size == 1
    assert [(str(item.path), item.reason) for item in found.skipped] == [
        (f"{tmp_path / 'a.tar'}:{name}", reason)
    ]


def test_folders_are_passed_over(tmp_path):
    members = [special("good", tarfile.DIRTYPE), *sample("good/1")]
    members.insert(2, special("good/1.d", tarfile.DIRTYPE))
    found = read_webdataset(write_tar(tmp_path / "a.tar", members))
    assert (found.size, found.skipped) == (1, ())


def test_a_member_beyond_any_image_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("asif_jax.data.sources.tar_members._MOST_BYTES", 200)
    members = [("1.png", picture() + bytes(200)), ("1.txt", b"One."), *sample("2")]
    found = read_webdataset(write_tar(tmp_path / "a.tar", members))
    assert reasons(found) == {"1.png": f"{len(picture()) + 200} bytes are too many"}


def test_what_is_whole_of_a_file_cut_anywhere_is_used(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(["1", "2"]), form=tarfile.GNU_FORMAT)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        ends = {member.name: member.offset_data + member.size for member in tar.getmembers()}
        marked = tar.offset + 512
    for length in range(ends["1.txt"], len(whole), 64):
        path.write_bytes(whole[:length])
        found = read_webdataset(path)
        assert found.size == 1 + (length >= ends["2.txt"])
        assert found.read(found.size - 1).captions == (f"Number {found.size - 1}.",)
        assert ("a.tar" in reasons(found)) == (length < marked)
        assert "cut short" in reasons(found).get("a.tar", "cut short")


def test_the_member_that_is_cut_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(["1", "2"]), form=tarfile.GNU_FORMAT)
    whole = path.read_bytes()
    for name in ("2.png", "2.txt"):
        with path.open("wb") as file:
            file.write(whole[: whole.index(name.encode()) + 512 + 3])
        found = read_webdataset(path)
        end = path.stat().st_size
        assert reasons(found) == {
            name: "cut short",
            "a.tar": f"cut short or damaged at byte {end:,}",
        }
    path.write_bytes(whole[:700])
    with pytest.raises(ValueError, match=r"2 skipped, the first being .*a\.tar: cut short"):
        read_webdataset(path)


def test_a_damaged_header_ends_a_file(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(["1", "2", "3"]), form=tarfile.GNU_FORMAT)
    content = bytearray(path.read_bytes())
    at = content.index(b"3.png")
    content[at : at + 5] = b"?????"
    path.write_bytes(content)
    found = read_webdataset(path)
    assert found.size == 2
    assert reasons(found) == {"a.tar": f"cut short or damaged at byte {at:,}"}


@pytest.mark.parametrize("size", [-512, -1025, 2**62, -(2**62)])
def test_sizes_that_cannot_be_do_no_harm(tmp_path, size):
    path = write_tar(tmp_path / "a.tar", samples(["1", "2"]), form=tarfile.GNU_FORMAT)
    content = bytearray(path.read_bytes())
    at = content.index(b"2.txt")
    header = content[at : at + 512]
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[at : at + 512] = header
    path.write_bytes(content)
    found = read_webdataset(path)
    assert found.size == 1
    assert "cut short" in reasons(found)["a.tar"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.tar.gz", None, "compressed, so that no image can be read by its number"),
        ("a.tar", None, "compressed, so that no image can be read by its number"),
        ("a.tar", b"", "not a tar file, or an empty one"),
        ("a.tar", b"x" * 2000, "not a tar file, or an empty one"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, reason):
    plain = write_tar(tmp_path / "b.tar", sample("1")).read_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(plain) if content is None else content)
    for read in (read_webdataset, lambda path: read_set(str(path))):
        with pytest.raises(ValueError, match=f"no usable pair in {path}: 1 skipped.*{reason}"):
            read(path)
    found = read_webdataset(tmp_path)
    assert found.size == 1
    assert [(item.path, item.reason[:20]) for item in found.skipped] == [(path, reason[:20])]


def test_unusable_sources_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such file or folder: .*gone\.tar"):
        read_webdataset(tmp_path / "gone.tar")
    with pytest.raises(ValueError, match="no images with captions in"):
        read_webdataset(tmp_path)
    write_tar(tmp_path / "a.tar", [])
    with pytest.raises(ValueError, match="no images with captions in"):
        read_webdataset(tmp_path / "a.tar")


def test_permission_is_named(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", sample("1"))
    locked = write_tar(tmp_path / "b.tar", sample("2"))
    found = read_webdataset(tmp_path)
    real = type(locked).open

    def refuse(path, *args, **kwargs):
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(type(locked), "open", refuse)
    assert reasons(read_webdataset(tmp_path)) == {"b.tar": "unreadable: Permission denied"}
    with pytest.raises(ValueError, match=r"b\.tar:2\.png: unreadable: Permission denied"):
        found.read(1)


def test_a_file_written_anew_is_not_misread(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(["1", "2"]))
    found = read_webdataset(path)
    again = read_webdataset(path)
    assert found.identity == again.identity
    write_tar(path, samples(["2", "1"]))
    os.utime(path, ns=(0, 12345))
    with pytest.raises(ValueError, match=r"a\.tar:1\.png: the file was written anew"):
        found.read(0)
    assert read_webdataset(path).identity != found.identity
    path.unlink()
    assert found.place(1).name == "a.tar:2.png"
    with pytest.raises(ValueError, match=r"a\.tar:2\.png: unreadable"):
        found.read(1)


def test_threads_and_any_order_see_the_same(tmp_path):
    for shard in range(3):
        keys = [f"{key:05}" for key in range(20)]
        write_tar(tmp_path / f"{shard}.tar", samples(keys, start=20 * shard))
    sequential = [read_webdataset(tmp_path).read(index) for index in range(60)]
    found = read_webdataset(tmp_path)
    order = [index for start in (41, 0, 20) for index in range(start, start + 19)] * 4
    with ThreadPoolExecutor(8) as pool:
        for index, example in zip(order, pool.map(found.read, order), strict=True):
            assert example.captions == sequential[index].captions == (f"Number {index}.",)
            assert red(example) == red(sequential[index]) == index


def test_the_index_is_small(tmp_path):
    keys = [f"{key:09}" for key in range(500)]
    members = [(f"{key}.{suffix}", b"") for key in keys for suffix in ("jpg", "txt", "json")]
    path = write_tar(tmp_path / "a.tar", members, form=tarfile.USTAR_FORMAT)
    found = read_webdataset(path)
    assert (found.size, found.place(499).name) == (500, "a.tar:000000499.jpg")
    shard = webdataset._index(path, [])
    assert (shard.samples.nbytes + len(shard.names)) / found.size < 50
