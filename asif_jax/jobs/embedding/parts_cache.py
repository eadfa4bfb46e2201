"""Results of a long job on disk, part by part: a rerun goes on where the former one stopped.

A directory holds the parts of one job and `about.json`, which says of what. Every file is written
under another name first, so that it is there as a whole or not at all.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

_FORMAT = "asif-jax parts 1"


class Part(NamedTuple):
    """What one part of a job gave.

    Attributes:
      arrays: maps names to arrays.
      notes: holds anything that JSON can hold.
      whole: is false if something may be read next time that could not be now; the part is then
        computed again.
    """

    arrays: Mapping[str, np.ndarray]
    notes: Any = None
    whole: bool = True


def open_parts(cache: Path, *, job: str, identity: str) -> Path:
    """The directory for the parts of a job.

    Args:
      cache: the directory of all jobs; made if need be.
      job: what is computed from where, in words.
      identity: of all it is computed from. If it was another when parts were kept, they are
        removed, and a warning is logged.

    Returns:
      The directory.

    Raises:
      OSError: it cannot be written.
    """
    directory = cache / hashlib.sha256(job.encode()).hexdigest()[:24]
    directory.mkdir(parents=True, exist_ok=True)
    about = {"format": _FORMAT, "job": job, "identity": identity}
    former = _read_about(directory / "about.json")
    if former != about:
        for path in directory.glob("*.safetensors"):
            path.unlink(missing_ok=True)
        write_atomically(directory / "about.json", json.dumps(about, indent=1).encode())
    if former and former.get("identity") != identity:
        logging.getLogger(__name__).warning("%s: changed since the last run; computed anew", job)
    return directory


def compute_parts(
    directory: Path,
    count: int,
    size: int,
    compute: Callable[[Iterable[range]], Iterator[Part]],
) -> Iterator[tuple[range, Part]]:
    """Goes through the parts of a job in order, reading those on disk and computing the others.

    Args:
      directory: from `open_parts`.
      count: how many items there are.
      size: items to a part; always the same for one directory.
      compute: ranges of items -> the part of each, in order; it may work ahead.

    Yields:
      Each range and its part. A part is on disk before it is yielded.
    """
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    missing = {items for items in parts if _read_part(_file_of(directory, items)) is None}
    computed = compute(items for items in parts if items in missing)
    for items in parts:
        path = _file_of(directory, items)
        part = None if items in missing else _read_part(path)
        if part is None:
            part = next(computed) if items in missing else next(compute([items]))
            _write_part(path, part)
        yield items, part


def _file_of(directory: Path, items: range) -> Path:
    return directory / f"{items.start:010}.safetensors"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is there as a whole or not at all, whatever happens meanwhile.

    Args:
      path: the file; one already there is replaced.
      content: what to write.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_about(path: Path) -> dict[str, Any] | None:
    try:
        about = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def _read_part(path: Path) -> Part | None:
    """The part, unless it is missing, damaged, or worth another try."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads(file.metadata()["part"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, safetensors.SafetensorError, KeyError, TypeError, ValueError):
        return None
    return Part(arrays, about["notes"]) if about["whole"] else None


def _write_part(path: Path, part: Part) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in part.arrays.items()}
    about = json.dumps({"notes": part.notes, "whole": part.whole})
    write_atomically(path, safetensors.numpy.save(arrays, metadata={"part": about}))
