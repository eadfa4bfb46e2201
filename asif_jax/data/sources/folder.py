"""Pairs from a folder, in the two forms in which people keep them.

Either a metadata.jsonl or metadata.csv lists file names and captions, or every image has a .txt of
the same name beside it.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asif_jax.data.captions import (
    CAPTION_KEYS,
    caption_value,
    clean_captions,
    decode_caption,
    parse_object,
)
from asif_jax.data.image_set import ImageSet, captioned
from asif_jax.data.images import images_below
from asif_jax.data.pairs import Pair, PairList, Skipped, group_of, leads_outside, none_usable
from asif_jax.data.sources.source import Options, Source

_METADATA = ("metadata.jsonl", "metadata.csv")

# Columns that hold the image and its captions, so that no other modality can be called so.
_TAKEN = ("file_name", "image", *CAPTION_KEYS)

# A limit of the csv module; here the lengths of captions are checked row by row.
_FIELD_LIMIT = 2**31 - 1


def read_folder(directory: Path, *, modalities: tuple[str, ...] = ()) -> PairList:
    """Reads the pairs of a folder.

    Args:
      directory: a folder of one of two forms. Either it holds a metadata.jsonl or metadata.csv
        whose rows have a file_name, relative to the folder, and captions under caption, captions,
        text or texts; rows of the same file_name become one pair. Or it holds images, at any
        depth, each with a .txt of the same name, the whole of which is one caption.
      modalities: the names of further columns of the metadata, such as "speech". They hold the
        names of files, relative to the folder, and a row that lacks one of them is skipped.

    Returns:
      The pairs, in the order of the metadata or else sorted by path, and what was left out.

    Raises:
      ValueError: there is no such folder, or nothing usable in it; or modalities are asked for
        that no column can hold, or of a folder without metadata.
    """
    if not directory.exists():
        raise ValueError(f"no such folder: {directory}")
    if not directory.is_dir():
        raise ValueError(f"not a folder: {directory}")
    metadata = _find_metadata(directory)
    if modalities:
        _check_modalities(modalities, directory, metadata)
    found = list(_from_metadata(metadata, modalities) if metadata else _from_sidecars(directory))
    merged = list(_merged(found))
    result = PairList(
        tuple(item for item in merged if isinstance(item, Pair)),
        tuple(item for item in merged if isinstance(item, Skipped)),
    )
    if not result.pairs:
        _refuse_metadata_below(directory)
        raise none_usable(directory, result.skipped)
    return result


def _find_metadata(directory: Path) -> Path | None:
    """The file in a folder that lists its images; metadata.jsonl comes first."""
    candidates = (directory / name for name in _METADATA)
    return next((path for path in candidates if path.is_file()), None)


def _metadata_below(directory: Path) -> list[Path]:
    return sorted(path for name in _METADATA for path in directory.rglob(name))


def _refuse_metadata_below(directory: Path) -> None:
    """Says which folder to name, where the splits of a folder have metadata and it has none."""
    below = _metadata_below(directory)
    if below and _find_metadata(directory) is None:
        others = f" (one of {len(below)})" if len(below) > 1 else ""
        raise ValueError(
            f"{directory} has no metadata of its own, but {below[0].parent} has{others}: "
            "name that folder"
        )


def _check_modalities(modalities: tuple[str, ...], directory: Path, metadata: Path | None) -> None:
    """Refuses modalities that cannot be columns of the metadata."""
    if taken := [name for name in modalities if name in _TAKEN]:
        raise ValueError(f"{taken[0]!r} cannot be a further modality: images and captions use it")
    if metadata is None:
        _refuse_metadata_below(directory)
        raise ValueError(
            f"{directory} has no metadata.jsonl or metadata.csv that could name files of "
            f"{modalities[0]!r}"
        )


def _from_sidecars(directory: Path) -> Iterator[Pair | Skipped]:
    for image in images_below(directory):
        yield check_pair(image, read_caption(image.with_suffix(".txt")), root=directory)


def read_caption(path: Path, *, first_line: bool = False) -> tuple[str, ...] | str:
    """Reads the caption in a text file.

    Args:
      path: the text file.
      first_line: whether only its first line counts.

    Returns:
      The caption, as the only one of a tuple, or the reason why there is none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "no caption file"
    except OSError as error:
        return f"caption unreadable: {error.strerror}"
    lines = content.splitlines()
    return decode_caption(lines[0] if first_line and lines else content)


def check_pair(
    image: Path,
    captions: tuple[str, ...] | str,
    *,
    root: Path,
    items: tuple[tuple[str, Path], ...] = (),
) -> Pair | Skipped:
    """Makes a pair, unless a part of it is missing.

    Args:
      image: the image file.
      captions: its captions, cleaned, or the reason why there are none.
      root: the folder from which the pairs are read.
      items: the files of further modalities, as (modality, file).

    Returns:
      The pair, or what is wrong with it.
    """
    if isinstance(captions, str):
        return Skipped(image, captions)
    others = ((f"{modality} file", path) for modality, path in items)
    for what, path in (("image", image), *others):
        if not path.is_file():
            return Skipped(path, f"no such {what}")
        if not os.access(path, os.R_OK):
            return Skipped(path, "no permission to read it")
    return Pair(image, captions, group_of(image, root), items)


def _from_metadata(metadata: Path, modalities: tuple[str, ...]) -> Iterator[Pair | Skipped]:
    root = metadata.parent
    rows = _jsonl_rows if metadata.suffix == ".jsonl" else _csv_rows
    for line, row in rows(metadata):
        place = Path(f"{metadata}:{line}")
        if isinstance(row, str):
            yield Skipped(place, row)
        elif isinstance(files := _files_of(row, ("file_name", *modalities), root), str):
            yield Skipped(place, files)
        else:
            image, *others = files
            items = zip(modalities, (path.absolute() for path in others), strict=True)
            captions = clean_captions(caption_value(row))
            yield check_pair(image, captions, root=root, items=tuple(items))


def _files_of(row: Mapping[str, Any], columns: Iterable[str], root: Path) -> list[Path] | str:
    """The files that these columns of a row name, or what is wrong with one of the names."""
    files = []
    for column in columns:
        name = row.get(column)
        if not isinstance(name, str) or not name:
            return f"no {column}"
        if leads_outside(name):
            return f"{column} leads outside the folder: {name}"
        files.append(root / name)
    return files


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Line numbers with the rows, or with what is wrong with them."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            yield number, parse_object(line)


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8") from error
    # Only line ends end a row: captions may hold U+2028 and others that str.splitlines splits at.
    reader = csv.DictReader(io.StringIO(content, newline=""))
    former = csv.field_size_limit(_FIELD_LIMIT)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from error
    finally:
        csv.field_size_limit(former)


def _merged(found: Iterable[Pair | Skipped]) -> Iterator[Pair | Skipped]:
    """Pairs of the same image become one with all their captions; what is skipped comes first."""
    by_image: dict[Path, Pair] = {}
    for pair in found:
        if isinstance(pair, Skipped):
            yield pair
            continue
        former = by_image.get(pair.image, pair)
        if former.items != pair.items:
            # One image cannot stand in a set twice, because its path is what names the pair.
            modality, path = next(x for x in pair.items if x not in former.items)
            yield Skipped(path, f"{pair.image} has another {modality} already")
            continue
        captions = dict.fromkeys((*former.captions, *pair.captions))
        by_image[pair.image] = pair._replace(captions=tuple(captions))
    yield from by_image.values()


def _has_captions(directory: Path) -> bool:
    if _find_metadata(directory):
        return True
    return any(image.with_suffix(".txt").is_file() for image in images_below(directory))


def _matches(source: str, options: Options) -> bool:
    """Whether a folder has captions, or metadata further down, which reading it then points to."""
    directory = Path(source)
    if options.labels_file is not None or not directory.is_dir():
        return False
    return _has_captions(directory) or bool(_metadata_below(directory))


def _read(source: str, options: Options) -> ImageSet:
    directory = Path(source)
    return captioned(directory, read_folder(directory, modalities=options.modalities))


SOURCE = Source("captioned folder", matches=_matches, read=_read, options=("modalities",))
