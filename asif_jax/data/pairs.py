"""Image-text pairs, wherever they come from."""

from collections.abc import Sequence
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


def leads_outside(name: str) -> bool:
    """Whether a name in somebody's list could mean a file outside the folder it is relative to.

    Args:
      name: as the list has it.

    Returns:
      True for absolute paths and those that go up.

    Example:
      >>> leads_outside("images/../../secret.png")
      True
    """
    path = Path(name)
    return path.is_absolute() or ".." in path.parts


def none_usable(source: Path, skipped: Sequence[Skipped]) -> ValueError:
    """The error for a source that gives no pair at all.

    Args:
      source: where pairs were looked for.
      skipped: what was found there but cannot be used.

    Returns:
      The error, for the caller to raise; names the first thing skipped and the cause.
    """
    if not skipped:
        return ValueError(f"no images with captions in {source}")
    first = skipped[0]
    return ValueError(
        f"no usable pair in {source}: {len(skipped)} skipped, "
        f"the first being {first.path}: {first.reason}"
    )
