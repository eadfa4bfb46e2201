"""Image-text pairs, wherever they come from."""

from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """An image file and what people say of it.

    Attributes:
      image: the image file.
      captions: one or more, stripped, none empty.
      group: the first folder below the root that holds the image, "" if it lies in the root.
    """

    image: Path
    captions: tuple[str, ...]
    group: str


class Skipped(NamedTuple):
    """Something that was left out, and why.

    Attributes:
      path: the file, or the line of a file as "metadata.jsonl:3".
      reason: why, in a few words.
    """

    path: Path
    reason: str


class PairList(NamedTuple):
    """Pairs in a fixed order, and what was left out."""

    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...]


def group_of(image: Path, root: Path) -> str:
    """The first folder below the root that holds the image.

    Args:
      image: a file below root.
      root: a folder.

    Returns:
      The folder's name, "" if the image lies in the root itself.

    Example:
      >>> group_of(Path("stamps/animals/birds/crow.png"), Path("stamps"))
      'animals'
    """
    parents = image.relative_to(root).parts[:-1]
    return parents[0] if parents else ""
