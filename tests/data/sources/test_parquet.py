import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from asif_jax.data import images, read_parquet, read_set
from asif_jax.data.image_set import file_state
from asif_jax.data.sources import parquet_rows

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number=0, *, kind="png", size=(6, 4)):
    content = io.BytesIO()
    Image.new("RGB", size, (number % 256, 50, 100)).save(content, kind)
    return content.getvalue()


def red(example):
    return np.asarray(example.image)[0, 0, 0]


def write(path, image, caption, *, names=("image", "caption"), kinds=(None, None), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [pa.array(values, kind) for values, kind in zip((image, caption), kinds, strict=True)]
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path, **options)
    return path


def write_numbered(path, numbers, **options):
    """As the hub has them: structs of bytes and path."""
    rows = [{"bytes": picture(number), "path": f"{number}.jpg"} for number in numbers]
    captions = [f"Number {number}." for number in numbers]
    return write(path, rows, captions, kinds=(STRUCT, pa.string()), **options)


def numbers(found):
    return [red(found.read(index)) for index in range(found.size)]


def test_files_are_read_in_order_at_any_depth(tmp_path):
    write_numbered(tmp_path / "data" / "train-00001-of-2.parquet", range(5, 8))
    write_numbered(tmp_path / "data" / "train-00000-of-2.parquet", range(5), row_group_size=2)
    write_numbered(tmp_path / "z.PARQUET", [8])
    write_numbered(tmp_path / "empty.parquet", [])
    found = read_parquet(tmp_path)
    assert (found.size, found.classes, found.skipped) == (9, (), ())
    for index in range(9):
        example = found.read(index)
        assert (red(example), example.captions) == (index, (f"Number {index}.",))
    assert found.place(6) == tmp_path / "data" / "train-00001-of-2.parquet:1"
    with pytest.raises(IndexError):
        found.read(9)


def test_the_columns_of_a_set_of_the_hub(tmp_path):
    rows = {
        "id": pa.array([1, 2]),
        "audio": pa.array([{"bytes": b"", "path": ""}] * 2, STRUCT),
        "image": pa.array([{"bytes": picture(n), "path": None} for n in range(2)], STRUCT),
        "thumbnail": pa.array([b"", b""]),
        "text": pa.array(["not this", "nor this"]),
        "captions": pa.array([["One.", " "], ["Two.", "Three."]]),
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    found = read_parquet(tmp_path / "a.parquet")
    assert [found.read(index).captions for index in range(2)] == [("One.",), ("Two.", "Three.")]
    assert numbers(found) == [0, 1]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("name", ["image", "jpg"])
def test_columns_of_bytes(tmp_path, kind, name):
    content = [picture(number) for number in range(3)]
    path = tmp_path / "a.parquet"
    write(path, content, ["a", "b", "c"], names=(name, "text"), kinds=(kind, None))
    assert numbers(read_parquet(path)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.string(), " A\n dog. "),
        (pa.large_string(), "A dog."),
        (pa.string_view(), "A dog."),
        (pa.dictionary(pa.int8(), pa.string()), "A dog."),
        (pa.list_(pa.string()), ["A dog.", "", None]),
        (pa.large_list(pa.string()), ["A dog."]),
        (pa.list_(pa.string(), 1), ["A dog."]),
    ],
)
@pytest.mark.parametrize("name", ["caption", "captions", "text", "texts"])
def test_columns_of_captions(tmp_path, kind, value, name):
    path = write(
        tmp_path / "a.parquet", [picture()], [value], names=("x", name), kinds=(None, kind)
    )
    assert read_parquet(path).read(0).captions == ("A dog.",)


@pytest.mark.parametrize("column", ["image", "file_name", "path"])
def test_columns_of_paths(tmp_path, column):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(picture(1))
    (tmp_path.parent / "outside.png").write_bytes(picture(2))
    paths = ["pictures/1.png", "../outside.png", str(tmp_path / "pictures" / "1.png"), "gone.png"]
    paths += ["", None, "zero\0.png"]
    path = write(tmp_path / "a.parquet", paths, ["x"] * 7, names=(column, "caption"))
    found = read_parquet(path)
    assert (found.size, red(found.read(0))) == (7, 1)
    outside = "path leads outside the folder"
    reasons = [outside, outside, "gone.png: no such file", "no image", "no image", "zero"]
    for index, reason in enumerate(reasons, start=1):
        with pytest.raises(ValueError) as error:
            found.read(index)
        assert str(error.value).startswith(f"{path}:{index}: {reason}")


def test_the_path_of_a_struct_counts_where_there_are_no_bytes(tmp_path):
    (tmp_path / "1.png").write_bytes(picture(1))
    rows = [
        {"bytes": None, "path": "1.png"},
        {"bytes": picture(2), "path": "../elsewhere.png"},
        {"bytes": None, "path": "../1.png"},
        {"bytes": None, "path": None},
        None,
    ]
    path = write(tmp_path / "a.parquet", rows, ["x"] * 5, kinds=(STRUCT, None))
    found = read_parquet(path)
    assert [red(found.read(index)) for index in range(2)] == [1, 2]
    for index, reason in ((2, "path leads outside"), (3, "no image"), (4, "no image")):
        with pytest.raises(ValueError, match=rf"a\.parquet:{index}: {reason}"):
            found.read(index)


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (None, "no caption"),
        (" \n", "no caption"),
        ("x" * 2**20, "caption of 1,048,576 characters"),
        (b"caf\xe9", "caption is not UTF-8"),
    ],
)
def test_captions_that_are_none_are_named_on_reading(tmp_path, caption, reason):
    captions = pa.array(
        [caption and caption.encode() if isinstance(caption, str) else caption, b"b"]
    )
    strings = pa.Array.from_buffers(pa.string(), 2, captions.buffers())
    path = write(tmp_path / "a.parquet", [picture()] * 2, strings)
    found = read_parquet(path)
    with pytest.raises(ValueError) as error:
        found.read(0)
    assert str(error.value) == f"{path}:0: {reason}"
    assert found.read(1).captions == ("b",)


def test_captions_of_any_script_and_byte(tmp_path):
    captions = ["一只猫 🐕", "كلب собака", "zero\0byte", "x" * 10_000]
    found = read_parquet(write(tmp_path / "a.parquet", [picture()] * 4, captions))
    assert [found.read(index).captions for index in range(4)] == [(text,) for text in captions]


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
    rows = [{"bytes": content, "path": "a.jpg"}, {"bytes": picture(1), "path": "b.jpg"}]
    path = write(tmp_path / "a.parquet", rows, ["a", "b"])
    found = read_parquet(path)
    with pytest.raises(ValueError) as error:
        found.read(0)
    assert str(error.value).startswith(f"{path}:0: {reason}")
    assert red(found.read(1)) == 1


def damage(path, group, column):
    """Overwrites the data of one column of one row group."""
    chunk = pq.read_metadata(path).row_group(group).column(column)
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)


def test_other_row_groups_are_not_read(tmp_path):
    path = write_numbered(tmp_path / "a.parquet", range(6), row_group_size=2)
    damage(path, 1, 0)
    found = read_parquet(path)
    for index in (0, 1, 4, 5):
        assert red(found.read(index)) == index
    for index in (2, 3):
        with pytest.raises(ValueError, match=rf"a\.parquet:{index}: row group cut short or damag"):
            found.read(index)
    assert red(found.read(0)) == 0


def test_other_columns_are_not_read(tmp_path):
    columns = {"image": [picture(1)], "caption": ["One."], "embedding": [[0.5] * 100]}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    damage(path, 0, 2)
    with pytest.raises(OSError):
        pq.read_table(path)
    assert read_parquet(path).read(0).captions == ("One.",)


def count_streams(monkeypatch):
    opened = []
    stream = parquet_rows._stream

    def counted(path, columns, group):
        opened.append(group)
        return stream(path, columns, group)

    monkeypatch.setattr(parquet_rows, "_stream", counted)
    return opened


def test_in_order_a_row_group_is_read_once(tmp_path, monkeypatch):
    opened = count_streams(monkeypatch)
    found = read_parquet(write_numbered(tmp_path / "a.parquet", range(250), row_group_size=100))
    assert numbers(found) == list(range(250))
    assert opened == [0, 1, 2]
    # Neighbours are still there; what is far behind is read again.
    assert red(found.read(249 - parquet_rows._KEPT // 2)) == 249 - parquet_rows._KEPT // 2
    assert opened == [0, 1, 2]
    assert red(found.read(3)) == 3
    assert opened == [0, 1, 2, 0]


def test_few_rows_of_a_row_group_are_in_memory(tmp_path):
    path = write_numbered(tmp_path / "a.parquet", range(1000))
    assert pq.read_metadata(path).num_row_groups == 1
    reader = parquet_rows.RowReader()
    for row in (999, 0, 500):
        _, caption = reader.read(path, file_state(path), ("image", "caption"), 0, row)
        assert caption.as_py() == f"Number {row}."
        assert sum(batch.num_rows for _, _, batch in reader._kept) <= parquet_rows._KEPT


def test_damage_is_found_once(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "a.parquet", range(100))
    damage(path, 0, 2)
    opened = count_streams(monkeypatch)
    found = read_parquet(path)
    for index in range(100):
        with pytest.raises(ValueError, match=rf":{index}: row group"):
            found.read(index)
    assert opened == [0]


def test_threads_and_any_order_see_the_same(tmp_path, monkeypatch):
    # As with three times the rows and the usual sizes, but faster.
    monkeypatch.setattr(parquet_rows, "_BATCH", 10)
    monkeypatch.setattr(parquet_rows, "_KEPT", 40)
    for shard, size in enumerate((7, 15, 30)):
        numbered = range(30 * shard, 30 * shard + 30)
        write_numbered(tmp_path / f"{shard}.parquet", numbered, row_group_size=size)
    in_order = read_parquet(tmp_path)
    sequential = [in_order.read(index) for index in range(90)]
    found = read_parquet(tmp_path)
    order = [index for start in (45, 0, 87, 18) for index in range(start, min(start + 27, 90))]
    with ThreadPoolExecutor(8) as pool:
        for index, example in zip(order * 2, pool.map(found.read, order * 2), strict=True):
            assert example.captions == sequential[index].captions == (f"Number {index}.",)
            assert red(example) == red(sequential[index]) == index % 256


def test_a_file_written_anew_is_not_misread(tmp_path):
    path = write_numbered(tmp_path / "a.parquet", range(3))
    found = read_parquet(path)
    assert read_parquet(path).identity == found.identity
    write_numbered(path, range(4))
    with pytest.raises(ValueError, match=r"a\.parquet:0: the file was written anew"):
        found.read(0)
    assert read_parquet(path).identity != found.identity
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.parquet:2: unreadable"):
        found.read(2)


def test_files_that_cannot_be_used_are_named(tmp_path):
    good = write_numbered(tmp_path / "good.parquet", [1])
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-20])
    (tmp_path / "empty.parquet").touch()
    write(tmp_path / "labels.parquet", [picture()], [3], names=("image", "label"))
    write(tmp_path / "numbers.parquet", [picture()], [3])
    write(tmp_path / "table.parquet", ["http://a.b/c.jpg"], ["A."], names=("url", "caption"))
    twins = {"left": [picture()], "right": [picture()], "text": ["x"]}
    pq.write_table(pa.table(twins), tmp_path / "twins.parquet")
    found = read_parquet(tmp_path)
    assert numbers(found) == [1]
    assert {item.path.name: item.reason for item in found.skipped} == {
        "cut.parquet": "not a Parquet file, or cut short",
        "empty.parquet": "not a Parquet file, or cut short",
        "labels.parquet": "no column of captions among ['image', 'label']",
        "numbers.parquet": "no column of captions among ['image', 'caption']",
        "table.parquet": "no column of images among ['url', 'caption']",
        "twins.parquet": "leaves open which column is the image: ['left', 'right']",
    }
    with pytest.raises(ValueError, match=r"1 skipped.*cut\.parquet: not a Parquet file"):
        read_parquet(tmp_path / "cut.parquet")


def test_permission_is_named(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "a.parquet", [1])

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(ValueError, match=r"a\.parquet: no permission to read it"):
        read_parquet(path)


def test_unusable_sources_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no such file or folder: .*gone\.parquet"):
        read_set(str(tmp_path / "gone.parquet"))
    with pytest.raises(ValueError, match="no images with captions in"):
        read_parquet(tmp_path)
    write_numbered(tmp_path / "a.parquet", [])
    with pytest.raises(ValueError, match="no images with captions in"):
        read_parquet(tmp_path / "a.parquet")


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "a.parquet", [1])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"pip install 'asif-jax\[data\]'"):
        read_parquet(path)
