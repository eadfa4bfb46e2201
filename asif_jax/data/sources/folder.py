"""Pairs from a folder, in the two forms people keep them.

Either a metadata.jsonl or metadata.csv lists file names and captions, or every image has a .txt of
the same name beside it.
"""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asif_jax.data.captions import caption_value, clean_captions, decode_caption, parse_object
from asif_jax.data.images import images_below
from asif_jax.data.pairs import Pair, PairList, Skipped, group_of, leads_outside, none_usable

_METADATA = ("metadata.jsonl", "metadata.csv")

# Of the csv module; the lengths of captions are checked here, row by row.
_FIELD_LIMIT = 2**31 - 1


def read_folder(directory: Path) -> PairList:
    """Reads the pairs of a folder.

    Args:
      directory: with metadata.jsonl or metadata.csv at its root (file_name relative to it; captions
        under caption, captions, text or texts; rows of the same file_name are one pair), or
        with images, at any depth, that have a .txt of the same name, the whole of which is one
        caption.

    Returns:
      The pairs, in the order of the metadata, or sorted by path; and what was left out.

    Raises:
      ValueError: no such folder, or nothing usable in it.
    """
    if not directory.exists():
        raise ValueError(f"no such folder: {directory}")
    if not directory.is_dir():
        raise ValueError(f"not a folder: {directory}")
    metadata = find_metadata(directory)
    found = list(_from_metadata(metadata) if metadata else _from_sidecars(directory))
    result = PairList(
        tuple(_merged(item for item in found if isinstance(item, Pair))),
        tuple(item for item in found if isinstance(item, Skipped)),
    )
    if not result.pairs:
        refuse_metadata_below(directory)
        raise none_usable(directory, result.skipped)
    return result


def find_metadata(directory: Path) -> Path | None:
    """The file in a folder that lists its images.

    Args:
      directory: the folder.

    Returns:
      metadata.jsonl, or else metadata.csv; None if neither is there.
    """
    candidates = (directory / name for name in _METADATA)
    return next((path for path in candidates if path.is_file()), None)


def refuse_metadata_below(directory: Path) -> None:
    """Refuses a folder whose splits have metadata and which has none itself.

    Args:
      directory: a folder that nothing usable was found in.

    Raises:
      ValueError: there is metadata in a folder below; says which to name.
    """
    below = sorted(path for name in _METADATA for path in directory.rglob(name))
    if below and find_metadata(directory) is None:
        others = f" (one of {len(below)})" if len(below) > 1 else ""
        raise ValueError(
            f"{directory} has no metadata of its own, but {below[0].parent} has{others}: "
            "name that folder"
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
      The caption alone, or the reason why there is none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "no caption file"
    except OSError as error:
        return f"caption unreadable: {error.strerror}"
    lines = content.splitlines()
    return decode_caption(lines[0] if first_line and lines else content)


def check_pair(image: Path, captions: tuple[str, ...] | str, *, root: Path) -> Pair | Skipped:
    """Makes a pair, unless the image or the caption is missing.

    Args:
      image: the image file.
      captions: its captions, cleaned, or the reason why there are none.
      root: the folder the pairs are read from.

    Returns:
      The pair, or what is wrong with it.
    """
    if isinstance(captions, str):
        return Skipped(image, captions)
    if not image.is_file():
        return Skipped(image, "no such image")
    if not os.access(image, os.R_OK):
        return Skipped(image, "no permission to read it")
    return Pair(image, captions, group_of(image, root))


def _from_metadata(metadata: Path) -> Iterator[Pair | Skipped]:
    root = metadata.parent
    rows = _jsonl_rows if metadata.suffix == ".jsonl" else _csv_rows
    for line, row in rows(metadata):
        place = Path(f"{metadata}:{line}")
        if isinstance(row, str):
            yield Skipped(place, row)
        elif not isinstance(name := row.get("file_name"), str) or not name:
            yield Skipped(place, "no file_name")
        elif leads_outside(name):
            yield Skipped(place, f"file_name leads outside the folder: {name}")
        else:
            yield check_pair(root / name, clean_captions(caption_value(row)), root=root)


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


def _merged(pairs: Iterator[Pair]) -> list[Pair]:
    """Pairs of the same image become one with all their captions."""
    by_image: dict[Path, Pair] = {}
    for pair in pairs:
        former = by_image.get(pair.image)
        captions = (former.captions if former else ()) + pair.captions
        by_image[pair.image] = pair._replace(captions=tuple(dict.fromkeys(captions)))
    return list(by_image.values())
