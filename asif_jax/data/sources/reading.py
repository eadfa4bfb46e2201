"""One call from what a user names to a set of images."""

import dataclasses
from pathlib import Path
from typing import Literal, NoReturn

from asif_jax.data.classes import name_classes
from asif_jax.data.image_set import ImageSet
from asif_jax.data.sources.class_folders import read_class_folders
from asif_jax.data.sources.folder import read_folder
from asif_jax.data.sources.source import Options, option_to_refuse
from asif_jax.data.sources.table import SOURCES


def read_set(
    source: str,
    *,
    split: str | None = None,
    data_dir: Path | None = None,
    feature: str | None = None,
    labels_file: Path | None = None,
    modalities: tuple[str, ...] = (),
    need: Literal["captions"] | None = None,
) -> ImageSet:
    """Reads a set of labelled or captioned images from where it is kept.

    Args:
      source: "tfds:NAME" for a set that TFDS has prepared; "stamps:" for the stamps of Tux Paint,
        or "stamps:FOLDER" if they lie elsewhere; a .tar or .parquet file, or a folder of such
        files; or a folder of images. The images of a folder either have captions (in
        metadata.jsonl, in metadata.csv or in a .txt beside each image), or lie in one folder per
        class. A folder that has both counts as captioned unless there is a labels file.
      split: the split of a TFDS set; see `read_tfds`.
      data_dir: the folder in which TFDS keeps its sets.
      feature: the feature of a TFDS set that holds the label or the captions.
      labels_file: names for the classes; see `name_classes`.
      modalities: what to read of every example beside its image and captions, such as "speech".
        A captioned folder has them as columns of its metadata; see `read_folder`.
      need: "captions" if a set without captions is of no use. The error then says which captions
        are missing rather than which classes.

    Returns:
      The set, with its classes in words.

    Raises:
      ValueError: there is nothing usable, an option does not apply to this kind of source, or
        there are no captions although they are needed.
    """
    if need and labels_file:
        raise ValueError(f"{labels_file} names classes, but captions are needed")
    options = Options(split, data_dir, feature, labels_file, tuple(modalities))
    found = _read(source, options, need)
    if found.classes and need:
        _refuse_without_captions(source)
    if found.classes:
        return dataclasses.replace(found, classes=name_classes(found.classes, labels_file))
    if labels_file is not None:
        raise ValueError(
            f"{found.source} holds captions, not classes that {labels_file} could name"
        )
    return found


def _read(source: str, options: Options, need: str | None) -> ImageSet:
    """Reads a source as the first kind that it matches."""
    for candidate in SOURCES:
        if candidate.matches(source, options):
            _check_options(source, options, candidate.kind, candidate.options)
            return candidate.read(source, options)
    _check_options(source, options, "path", ())
    _refuse_unknown(Path(source), need)


def _check_options(source: str, options: Options, kind: str, applicable: tuple[str, ...]) -> None:
    """Refuses options that do not apply to this kind of source."""
    name = option_to_refuse(options, applicable)
    if name is not None:
        others = " or ".join(other.kind for other in SOURCES if name in other.options)
        raise ValueError(
            f"{source} is no {others} but a {kind}, so the option {name!r} does not apply to it"
        )


def _refuse_unknown(path: Path, need: str | None) -> NoReturn:
    """Says what is wrong with a source that is of no known kind."""
    if path.is_dir():
        if need:
            _refuse_without_captions(str(path))
        # It raises, since too few class folders are what made the folder match no kind.
        read_class_folders(path)
    if path.exists():
        raise ValueError(f"neither a folder nor a .tar or .parquet file: {path}")
    raise ValueError(f"no such folder: {path}")


def _refuse_without_captions(source: str) -> NoReturn:
    """Says which captions are missing, as exactly as the kind of source allows."""
    if Path(source).is_dir():
        # It raises, and names the first image that has no caption.
        read_folder(Path(source))
    raise ValueError(
        f"{source} holds labels, but captions are needed: name the feature that holds captions"
    )
