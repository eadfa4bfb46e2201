"""Sets of images, each with a label or with captions, that are read by their number."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from asif_jax.data.images import open_image
from asif_jax.data.pairs import PairList, Skipped


class Example(NamedTuple):
    """An image and what is known of it.

    Attributes:
      image: is the decoded image, in RGB.
      label: is the index of its class, -1 in a set without classes.
      captions: holds its captions, none in a set with classes.
      items: maps each further modality to what the example has of it, such as the absolute path
        of a recording. Sets read without further modalities have none.
    """

    image: Image.Image
    label: int = -1
    captions: tuple[str, ...] = ()
    items: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order, opened one by one when asked for, so that a set may be of any size.

    Attributes:
      source: says where the set lies; it names the set to people, and among other sets.
      identity: is a hash that changes when an image, a label, a caption or another item does.
      size: is the number of images.
      read: returns the example of an index. It may be called from several threads, and raises
        ValueError if the image cannot be read.
      place: returns what to call the image of an index, as a path.
      classes: holds the names of the classes; a set of captions has none.
      skipped: lists what the set leaves out, and why.
      modalities: names the further modalities of which every example has an item.
    """

    source: str
    identity: str
    size: int
    read: Callable[[int], Example]
    place: Callable[[int], Path]
    classes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    modalities: tuple[str, ...] = ()

    def reference(self, index: int) -> str:
        """Names an image from any working directory: its place as an absolute path."""
        place = str(self.place(index))
        return os.path.realpath(place) if os.path.exists(self.source) else place


def captioned(directory: Path, found: PairList) -> ImageSet:
    """Makes a set of captioned images from pairs.

    Args:
      directory: the folder that holds the pairs.
      found: the pairs, all with items of the same modalities.

    Returns:
      The set, in the order of the pairs.
    """
    pairs = found.pairs

    def read(index: int) -> Example:
        pair = pairs[index]
        return Example(open_image(pair.image), captions=pair.captions, items=dict(pair.items))

    return ImageSet(
        source=str(directory.resolve()),
        identity=fingerprint(_records(directory, found)),
        size=len(pairs),
        read=read,
        place=lambda index: pairs[index].image,
        skipped=found.skipped,
        modalities=tuple(modality for modality, _ in pairs[0].items) if pairs else (),
    )


def _records(directory: Path, found: PairList) -> Iterator[tuple[str, ...]]:
    """What the identity of a set of pairs depends on."""
    for pair in found.pairs:
        yield str(pair.image.relative_to(directory)), file_state(pair.image), *pair.captions
        for modality, path in pair.items:
            name = os.path.relpath(path, directory.absolute())
            yield modality, name, file_state(path)


def file_state(path: Path) -> str:
    """Describes a file by what changes when it is written anew: its size and modification time.

    Args:
      path: the file.

    Returns:
      Both, as text.
    """
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def fingerprint(records: Iterable[Iterable[str]]) -> str:
    """Hashes many records into one string.

    Args:
      records: each is a series of strings. Their order counts.

    Returns:
      32 hexadecimal digits.

    Example:
      >>> fingerprint([["a", "b"]]) == fingerprint([["a"], ["b"]])
      False
    """
    digest = hashlib.sha256()
    for record in records:
        # The lengths make "ab", "c" differ from "a", "bc".
        parts = [part.encode("utf-8", "surrogateescape") for part in record]
        digest.update(f"{[len(part) for part in parts]}".encode() + b"".join(parts))
    return digest.hexdigest()[:32]
