"""One call from what a user names to a set of images to evaluate on."""

import dataclasses
from pathlib import Path

from asif_jax.data.image_set import ImageSet, captioned
from asif_jax.data.images import images_below
from asif_jax.data.sources.folder import find_metadata, read_folder, refuse_metadata_below
from asif_jax.data.sources.labelled import has_class_folders, name_classes, read_class_folders
from asif_jax.data.sources.parquet import parquet_files, read_parquet
from asif_jax.data.sources.tfds import read_tfds
from asif_jax.data.sources.webdataset import is_tar, read_webdataset, tar_files

_TFDS = "tfds:"


def read_set(
    source: str,
    *,
    split: str | None = None,
    data_dir: Path | None = None,
    feature: str | None = None,
    labels_file: Path | None = None,
) -> ImageSet:
    """Finds a set of labelled or captioned images.

    Args:
      source: "tfds:NAME", a set that TFDS has prepared; a .tar or .parquet file or a folder of
        them; or a folder of images, either captioned (with metadata.jsonl, metadata.csv or a .txt
        beside an image) or with one folder a class. A folder of images that is both counts as
        captioned unless there is a labels file.
      split: of a TFDS set; see `read_tfds`.
      data_dir: where TFDS keeps its sets.
      feature: the feature of a TFDS set that holds the label or the captions.
      labels_file: names for the classes; see `name_classes`.

    Returns:
      The set, its classes in words.

    Raises:
      ValueError: nothing usable there, or options that do not fit it.
    """
    if source.startswith(_TFDS):
        name = source.removeprefix(_TFDS)
        found = read_tfds(name, split=split, data_dir=data_dir, feature=feature)
    elif split or data_dir or feature:
        raise ValueError(f"{source} is no TFDS set (tfds:NAME): it has no split, feature, data_dir")
    else:
        found = _read_path(Path(source), labelled=labels_file is not None)
    if found.classes:
        return dataclasses.replace(found, classes=name_classes(found.classes, labels_file))
    if labels_file is not None:
        raise ValueError(
            f"{found.source} holds captions, not classes that {labels_file} could name"
        )
    return found


def _read_path(path: Path, *, labelled: bool) -> ImageSet:
    if path.is_dir():
        return _read_folder(path, labelled=labelled)
    if is_tar(path):
        return read_webdataset(path)
    if path.suffix.lower() == ".parquet":
        return read_parquet(path)
    if path.exists():
        raise ValueError(f"neither a folder nor a .tar or .parquet file: {path}")
    raise ValueError(f"no such folder: {path}")


def _read_folder(directory: Path, *, labelled: bool) -> ImageSet:
    if labelled:
        return read_class_folders(directory)
    if _has_captions(directory):
        return captioned(directory, read_folder(directory))
    refuse_metadata_below(directory)
    # Beside folders of images, such files are what these came in.
    if has_class_folders(directory):
        return read_class_folders(directory)
    # In this order: img2dataset writes tables without images beside its tar files.
    if tar_files(directory):
        return read_webdataset(directory)
    if parquet_files(directory):
        return read_parquet(directory)
    return read_class_folders(directory)


def _has_captions(directory: Path) -> bool:
    if find_metadata(directory):
        return True
    return any(image.with_suffix(".txt").is_file() for image in images_below(directory))
