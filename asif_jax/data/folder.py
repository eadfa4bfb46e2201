"""Pairs from a folder, in the two forms people keep them.

Either a metadata.jsonl or metadata.csv lists file names and captions, or every image has a .txt of
the same name beside it.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asif_jax.data.images import images_below
from asif_jax.data.pairs import Pair, PairList, Skipped, group_of

_CAPTION_KEYS = ("captions", "caption", "texts", "text")


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
    metadata = next(
        (
            directory / f"metadata.{kind}"
            for kind in ("jsonl", "csv")
            if (directory / f"metadata.{kind}").is_file()
        ),
        None,
    )
    found = list(_from_metadata(metadata) if metadata else _from_sidecars(directory))
    result = PairList(
        tuple(_merged(item for item in found if isinstance(item, Pair))),
        tuple(item for item in found if isinstance(item, Skipped)),
    )
    if not found:
        raise ValueError(f"no images with captions in {directory}")
    if not result.pairs:
        first = result.skipped[0]
        raise ValueError(
            f"no usable pair in {directory}: {len(found)} skipped, "
            f"the first being {first.path}: {first.reason}"
        )
    return result


def _from_sidecars(directory: Path) -> Iterator[Pair | Skipped]:
    for image in images_below(directory):
        yield check_pair(image, read_caption(image.with_suffix(".txt")), root=directory)


def read_caption(path: Path, *, first_line: bool = False) -> list[str] | str:
    """Reads the caption in a text file.

    Args:
      path: the text file.
      first_line: whether only its first line counts.

    Returns:
      The caption as a list of one, or the reason why there is none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "no caption file"
    except OSError as error:
        return f"caption unreadable: {error.strerror}"
    lines = content.splitlines()
    try:
        text = (lines[0] if first_line and lines else content).decode("utf-8-sig")
    except UnicodeDecodeError:
        return "caption is not UTF-8"
    return [" ".join(text.split())]


def check_pair(image: Path, captions: list[str] | str, *, root: Path) -> Pair | Skipped:
    """Makes a pair, unless the image or the caption is missing.

    Args:
      image: the image file.
      captions: its captions, or the reason why there are none.
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
    kept = tuple(stripped for caption in captions if (stripped := caption.strip()))
    if not kept:
        return Skipped(image, "no caption")
    return Pair(image, kept, group_of(image, root))


def _from_metadata(metadata: Path) -> Iterator[Pair | Skipped]:
    root = metadata.parent
    rows = _jsonl_rows if metadata.suffix == ".jsonl" else _csv_rows
    for line, row in rows(metadata):
        place = Path(f"{metadata}:{line}")
        if isinstance(row, str):
            yield Skipped(place, row)
        elif not isinstance(name := row.get("file_name"), str) or not name:
            yield Skipped(place, "no file_name")
        elif Path(name).is_absolute() or ".." in Path(name).parts:
            yield Skipped(place, f"file_name leads outside the folder: {name}")
        else:
            yield check_pair(root / name, _captions(row), root=root)


def _captions(row: Mapping[str, Any]) -> list[str] | str:
    value = next((row[key] for key in _CAPTION_KEYS if row.get(key)), None)
    values = value if isinstance(value, list) else [value]
    texts = [" ".join(text.split()) for text in values if isinstance(text, str)]
    return texts or "no caption"


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Line numbers with the rows, or with what is wrong with them."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            yield number, "not JSON in UTF-8"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object"


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8") from error
    reader = csv.DictReader(lines)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from error


def _merged(pairs: Iterator[Pair]) -> list[Pair]:
    """Pairs of the same image become one with all their captions."""
    by_image: dict[Path, Pair] = {}
    for pair in pairs:
        former = by_image.get(pair.image)
        captions = (former.captions if former else ()) + pair.captions
        by_image[pair.image] = pair._replace(captions=tuple(dict.fromkeys(captions)))
    return list(by_image.values())
