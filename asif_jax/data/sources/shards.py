"""What kinds of sources share that keep many examples in each file: tar files and Parquet."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from asif_jax.data.image_set import Example, ImageSet, file_state, fingerprint
from asif_jax.data.pairs import Skipped, none_usable


def shard_files(source: Path, names: re.Pattern[str]) -> list[Path]:
    """Lists the files of a set.

    Args:
      source: a file, which is accepted whatever its name, or a folder, which is searched together
        with all folders below it.
      names: a pattern that the names of such files match.

    Returns:
      The files, sorted; none if the folder holds none.

    Raises:
      ValueError: there is no such file or folder.
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


def set_of_shards(
    source: Path,
    files: Sequence[Path],
    sizes: Sequence[int],
    *,
    read: Callable[[int, int], Example],
    place: Callable[[int, int], Path],
    skipped: Sequence[Skipped],
) -> ImageSet:
    """Makes one set of images from files that hold many each.

    Args:
      source: the file or folder that the user named.
      files: all its files, usable or not, on which the identity depends.
      sizes: how many examples each usable file holds, in order.
      read: returns an example, given the number of a usable file and that of an example in it.
      place: returns what to call the image, given the same two numbers.
      skipped: what is left out, and why.

    Returns:
      The examples of all files, in order. The identity is that of the files, and changes when one
      is written anew.

    Raises:
      ValueError: the files hold no usable example.
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
    """Finds the part of a whole in which an item lies.

    Args:
      ends: [parts] int; entry i is the number of items in parts 0 to i together.
      index: the index of the item in the whole.

    Returns:
      The number of the part, and the index of the item in it.

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
    """Says why a file can no longer be read as it was when it was indexed.

    Args:
      path: the file.
      state: what `file_state` returned before the file was indexed.

    Returns:
      The reason, if the file was written anew since or is gone; otherwise the empty string.
    """
    try:
        changed = file_state(path) != state
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return "the file was written anew while the set was in use" if changed else ""
