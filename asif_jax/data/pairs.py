"""Image-text pairs, wherever they come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """An image file and what people say of it.

    Attributes:
      image: is the image file.
      captions: holds one or more captions, cleaned, none of them empty.
      group: names the first folder below the root that holds the image, and is "" if the image
        lies in the root itself.
      items: holds the files of further modalities, as (modality, absolute path).
    """

    image: Path
    captions: tuple[str, ...]
    group: str
    items: tuple[tuple[str, Path], ...] = ()


class Skipped(NamedTuple):
    """Something that was left out, and why.

    Attributes:
      path: names the file, or the line of a file as in "metadata.jsonl:3".
      reason: says in a few words why it was left out.
    """

    path: Path
    reason: str


class PairList(NamedTuple):
    """Pairs in a fixed order, and what was left out."""

    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...]


def group_of(image: Path, root: Path) -> str:
    """Finds the first folder below the root that holds the image.

    Args:
      image: an image file below the root.
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
    """Tells whether a file name in a list could lead out of the folder that it is relative to.

    Args:
      name: the file name, as the list has it.

    Returns:
      True for absolute paths and for those that contain "..".

    Example:
      >>> leads_outside("images/../../secret.png")
      True
    """
    path = Path(name)
    return path.is_absolute() or ".." in path.parts


def none_usable(source: Path, skipped: Sequence[Skipped]) -> ValueError:
    """Makes the error for a source that gives no pair at all.

    Args:
      source: where pairs were looked for.
      skipped: what was found there but cannot be used.

    Returns:
      The error, for the caller to raise. It names the first thing skipped and the cause.
    """
    if not skipped:
        return ValueError(f"no images with captions in {source}")
    first = skipped[0]
    return ValueError(
        f"no usable pair in {source}: {len(skipped)} skipped, "
        f"the first being {first.path}: {first.reason}"
    )
