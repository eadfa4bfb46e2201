import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from asif_jax.data import read_folder, read_set
from asif_jax.data.sources.source import Options
from asif_jax.data.sources.table import SOURCES


def add_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def add_tar(path, caption="From a tar."):
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in (("1.png", content.getvalue()), ("1.txt", caption.encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def add_split(directory):
    add_image(directory / "1.png")
    row = {"file_name": "1.png", "caption": f"From {directory.name}."}
    (directory / "metadata.jsonl").write_text(json.dumps(row))


def captions(source, **options):
    found = read_set(str(source), **options)
    return [found.read(index).captions[0] for index in range(found.size)]


def test_tar_files(tmp_path):
    add_tar(tmp_path / "deep" / "1.tar")
    assert captions(tmp_path / "deep" / "1.tar") == ["From a tar."]
    assert captions(tmp_path) == ["From a tar."]
    # A picture for the README of a set is not the set.
    add_image(tmp_path / "assets" / "logo.png")
    assert captions(tmp_path) == ["From a tar."]


def test_parquet_files(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "png")
    columns = {"image": [content.getvalue()], "text": ["From Parquet."]}
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table(columns), path)
    assert captions(path) == ["From Parquet."]
    assert captions(tmp_path) == ["From Parquet."]
    # img2dataset writes tables beside its tar files.
    add_tar(tmp_path / "data" / "00000.tar")
    assert captions(tmp_path) == ["From a tar."]


def test_a_table_of_file_names_beside_the_images_of_a_split(tmp_path):
    add_image(tmp_path / "train" / "1.png")
    columns = {"file_name": ["1.png"], "text": ["From the table."]}
    pq.write_table(pa.table(columns), tmp_path / "train" / "metadata.parquet")
    assert captions(tmp_path) == captions(tmp_path / "train") == ["From the table."]


def test_captions_beside_images_come_before_tar_files(tmp_path):
    add_tar(tmp_path / "1.tar")
    add_split(tmp_path)
    assert captions(tmp_path) == [f"From {tmp_path.name}."]


def test_folders_of_classes_come_before_the_tar_they_came_in(tmp_path):
    for name in ("cats", "dogs"):
        add_image(tmp_path / name / "1.png")
    add_tar(tmp_path / "images.tar")
    assert read_set(str(tmp_path)).classes == ("cats", "dogs")


@pytest.mark.parametrize("read", [read_folder, lambda path: read_set(str(path))])
def test_metadata_in_the_folder_of_a_split(tmp_path, read):
    add_split(tmp_path / "train")
    with pytest.raises(ValueError, match=rf"but {tmp_path}/train has: name that folder"):
        read(tmp_path)
    add_split(tmp_path / "test")
    with pytest.raises(ValueError, match=rf"but {tmp_path}/test has \(one of 2\): name that"):
        read(tmp_path)
    assert captions(tmp_path / "train") == ["From train."]
    add_split(tmp_path)
    assert captions(tmp_path) == [f"From {tmp_path.name}."]


def test_labels_do_not_fit_captions(tmp_path):
    add_tar(tmp_path / "1.tar")
    (tmp_path / "labels.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="holds captions, not classes"):
        read_set(str(tmp_path / "1.tar"), labels_file=tmp_path / "labels.txt")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "set.zip").touch()
    with pytest.raises(ValueError, match=r"neither a folder nor .*set\.zip"):
        read_set(str(tmp_path / "set.zip"))


def add_classes(directory, *names):
    for name in names:
        add_image(directory / name / "1.png")
    return directory


def sources_of_every_kind(root):
    """One small source of every kind that lies on the disk, by the name of the kind."""
    add_split(root / "captioned")
    add_tar(root / "tar" / "1.tar")
    (root / "parquet").mkdir()
    pq.write_table(pa.table({"image": [b""], "text": ["x"]}), root / "parquet" / "1.parquet")
    return {
        "captioned folder": root / "captioned",
        "folder with one folder per class": add_classes(root / "classes", "cats", "dogs"),
        "set of tar files": root / "tar",
        "set of Parquet files": root / "parquet",
        r"set of stamps \(stamps:\)": f"stamps:{root}",
        "path": root / "gone",
    }


@pytest.mark.parametrize(
    "option", [{"split": "test"}, {"data_dir": Path("sets")}, {"feature": "label"}]
)
def test_options_of_tfds_are_refused_elsewhere(tmp_path, option):
    (name,) = option
    for kind, source in sources_of_every_kind(tmp_path).items():
        message = rf"is no TFDS set \(tfds:NAME\) but a {kind}, so the option '{name}' does not"
        with pytest.raises(ValueError, match=message):
            read_set(str(source), **option)


def test_further_modalities_are_refused_where_they_cannot_be_read(tmp_path):
    sources = sources_of_every_kind(tmp_path)
    del sources["captioned folder"]
    for kind, source in (sources | {r"TFDS set \(tfds:NAME\)": "tfds:toy"}).items():
        message = rf"is no captioned folder but a {kind}, so the option 'modalities' does not"
        with pytest.raises(ValueError, match=message):
            read_set(str(source), modalities=("speech",))


def test_a_source_is_read_as_the_first_kind_that_matches():
    kinds = [source.kind for source in SOURCES]
    assert len(set(kinds)) == len(kinds)
    options = Options()
    assert [s.kind for s in SOURCES if s.matches("tfds:toy", options)] == ["TFDS set (tfds:NAME)"]
    assert [s.kind for s in SOURCES if s.matches("a.tar", options)] == ["set of tar files"]
    assert not any(source.matches("no such thing", options) for source in SOURCES)


def test_where_captions_are_needed_the_missing_ones_are_named(tmp_path):
    classes = add_classes(tmp_path / "classes", "cats", "dogs")
    with pytest.raises(ValueError, match=r"2 skipped.*cats/1\.png: no caption file"):
        read_set(str(classes), need="captions")
    add_image(tmp_path / "plain" / "1.png")
    with pytest.raises(ValueError, match=r"1 skipped.*plain/1\.png: no caption file"):
        read_set(str(tmp_path / "plain"), need="captions")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images with captions in"):
        read_set(str(tmp_path / "empty"), need="captions")
    with pytest.raises(ValueError, match="no such folder"):
        read_set(str(tmp_path / "gone"), need="captions")
    # Such names would be refused for other reasons, if they were looked at.
    wordnet = add_classes(tmp_path / "wordnet", "n01440764", "n01443537")
    with pytest.raises(ValueError, match="no caption file"):
        read_set(str(wordnet), need="captions")


def test_sets_with_captions_are_what_is_needed(tmp_path):
    add_split(tmp_path / "train")
    add_tar(tmp_path / "1.tar")
    assert captions(tmp_path / "train", need="captions") == ["From train."]
    assert captions(tmp_path / "1.tar", need="captions") == ["From a tar."]
    with pytest.raises(ValueError, match=r"labels\.txt names classes, but captions are needed"):
        read_set(str(tmp_path / "train"), need="captions", labels_file=tmp_path / "labels.txt")
