"""Sets of images to evaluate on: read by number, each with a label or with captions."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from asif_jax.data.images import open_image
from asif_jax.data.pairs import PairList, Skipped


class Example(NamedTuple):
    """An image and what is known of it.

    Attributes:
      image: the decoded image, RGB.
      label: its class, -1 in a set without classes.
      captions: its captions, none in a set with classes.
    """

    image: Image.Image
    label: int = -1
    captions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order, opened one by one and on demand, so a set of any size fits.

    Attributes:
      source: where the set lies; names it to people, and among other sets.
      identity: a hash that changes when an image, a label or a caption does.
      size: the number of images.
      read: index -> the example. Safe in threads; ValueError if the image cannot be read.
      place: index -> what to call the image.
      classes: the names of the classes; none in a set of captions.
      skipped: what the set leaves out, and why.
    """

    source: str
    identity: str
    size: int
    read: Callable[[int], Example]
    place: Callable[[int], Path]
    classes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def reference(self, index: int) -> str:
        """What names an image wherever one stands: its place, from the root of the file system."""
        place = str(self.place(index))
        return os.path.realpath(place) if os.path.exists(self.source) else place


def captioned(directory: Path, found: PairList) -> ImageSet:
    """A set of captioned images from pairs.

    Args:
      directory: the folder that holds them.
      found: its pairs.

    Returns:
      The set, in the order of the pairs.
    """
    pairs = found.pairs

    def read(index: int) -> Example:
        return Example(open_image(pairs[index].image), captions=pairs[index].captions)

    return ImageSet(
        source=str(directory.resolve()),
        identity=fingerprint(
            (str(pair.image.relative_to(directory)), file_state(pair.image), *pair.captions)
            for pair in pairs
        ),
        size=len(pairs),
        read=read,
        place=lambda index: pairs[index].image,
        skipped=found.skipped,
    )


def file_state(path: Path) -> str:
    """What changes when a file is written anew: its size and time of modification.

    Args:
      path: the file.

    Returns:
      Both, as text.
    """
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def fingerprint(records: Iterable[Iterable[str]]) -> str:
    """One hash of many records.

    Args:
      records: of strings, in an order that means something.

    Returns:
      32 hexadecimal digits.

    Example:
      >>> fingerprint([["a", "b"]]) == fingerprint([["a"], ["b"]])
      False
    """
    digest = hashlib.sha256()
    for record in records:
        # Lengths keep "ab", "c" apart from "a", "bc".
        parts = [part.encode("utf-8", "surrogateescape") for part in record]
        digest.update(f"{[len(part) for part in parts]}".encode() + b"".join(parts))
    return digest.hexdigest()[:32]
