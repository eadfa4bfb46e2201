"""What sets have in common that keep many examples to a file: tar files, Parquet."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from asif_jax.data.image_set import Example, ImageSet, file_state, fingerprint
from asif_jax.data.pairs import Skipped, none_usable


def shard_files(source: Path, names: re.Pattern[str]) -> list[Path]:
    """The files of a set.

    Args:
      source: a file, which is taken as it is, or a folder, which is searched with all below it.
      names: what the names of such files match.

    Returns:
      The files, sorted; none in a folder without.

    Raises:
      ValueError: no such file or folder.
    """
    if not source.exists():
        raise ValueError(f"no such file or folder: {source}")
    if not source.is_dir():
        return [source]
    return sorted(
        path
        for path in source.rglob("*")
        if names.search(path.name) and not path.name.startswith(".") and path.is_file()
    )


def sharded(
    source: Path,
    files: Sequence[Path],
    sizes: Sequence[int],
    *,
    read: Callable[[int, int], Example],
    place: Callable[[int, int], Path],
    skipped: Sequence[Skipped],
) -> ImageSet:
    """A set of captioned images from files that hold many each.

    Args:
      source: what the user named.
      files: all its files, for the identity.
      sizes: how many examples each usable file holds, in order.
      read: the number of a usable file and of an example in it -> the example.
      place: likewise -> what to call the image.
      skipped: what is left out, and why.

    Returns:
      The examples of all files, in order. The identity is that of the files, and changes when one
      is written anew.

    Raises:
      ValueError: the files hold no example.
    """
    ends = np.cumsum(sizes)
    if not len(ends) or not ends[-1]:
        raise none_usable(source, skipped)
    root = source if source.is_dir() else source.parent
    return ImageSet(
        source=str(source.parent.resolve() / source.name),
        identity=fingerprint((str(path.relative_to(root)), file_state(path)) for path in files),
        size=int(ends[-1]),
        read=lambda index: read(*locate(ends, index)),
        place=lambda index: place(*locate(ends, index)),
        skipped=tuple(skipped),
    )


def locate(ends: np.ndarray, index: int) -> tuple[int, int]:
    """Where an item lies among parts.

    Args:
      ends: [parts] int, how many items the parts up to each hold together.
      index: of the item.

    Returns:
      The number of the part, and of the item in it.

    Raises:
      IndexError: there is no such item.

    Example:
      >>> locate(np.array([3, 3, 5]), 3)
      (2, 0)
    """
    if not 0 <= index < ends[-1]:
        raise IndexError(f"no item {index} among {ends[-1]}")
    part = int(np.searchsorted(ends, index, side="right"))
    return part, int(index - (ends[part - 1] if part else 0))


def trouble_with(path: Path, state: str) -> str:
    """Whether what was found in a file still lies where it was found.

    Args:
      path: the file.
      state: from `file_state`, before the file was looked through.

    Returns:
      What is in the way, if the file was written anew since or is gone; nothing otherwise.
    """
    try:
        changed = file_state(path) != state
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return "the file was written anew while the set was in use" if changed else ""
