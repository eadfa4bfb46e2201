"""Pairs in tar files, as img2dataset and WebDataset write them, read without unpacking.

The headers are read once, to make an index of some 45 bytes per pair. After that any example costs
two reads at known places, wherever a job starts.
"""

import re
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asif_jax.data.captions import (
    caption_value,
    clean_captions,
    decode_caption,
    parse_object,
    require_captions,
)
from asif_jax.data.image_set import Example, ImageSet, file_state
from asif_jax.data.images import SUFFIXES, decode_image
from asif_jax.data.pairs import Skipped
from asif_jax.data.sources.shards import set_of_shards, shard_files, trouble_with
from asif_jax.data.sources.source import Options, Source
from asif_jax.data.sources.tar_members import Member, members_of

# Compressed files match too, so that they are named as unusable and not overlooked.
_NAMES = re.compile(r"\.(tar(\.(gz|bz2|xz|zst))?|tgz|tbz2?|txz)$", re.IGNORECASE)

# Where the image and the caption of a sample lie, and where its name ends in the joined names.
_SAMPLE = np.dtype(
    [
        ("image", "i8"),
        ("image_size", "u4"),
        ("text", "i8"),
        ("text_size", "u4"),
        ("is_json", "?"),
        ("name_end", "i8"),
    ]
)


class _Shard(NamedTuple):
    """The usable samples of a tar file; `names` are the paths of their images, joined."""

    path: Path
    state: str
    samples: np.ndarray
    names: bytes


def read_webdataset(source: Path) -> ImageSet:
    """Reads the captioned images of tar files.

    Args:
      source: a tar file, or a folder that holds some, at any depth. The key of a member is its path
        up to the first dot of its name. Members that follow each other and have the same key are
        one sample: an image, and its captions in a .txt or else in a .json, which holds them under
        captions, caption, texts or text.

    Returns:
      The images, in the order of the members, file after file, the files sorted by path. `skipped`
      names what is damaged, the samples that lack a part, and those whose key came before in the
      same file.

    Raises:
      ValueError: there is no such source, or nothing in it is usable, for example because all files
        are compressed.
    """
    files = tar_files(source)
    skipped: list[Skipped] = []
    shards = [_index(path, skipped) for path in files]
    return set_of_shards(
        source,
        files,
        [len(shard.samples) for shard in shards],
        read=lambda number, row: _read(shards[number], row),
        place=lambda number, row: _place(shards[number], row),
        skipped=skipped,
    )


def tar_files(source: Path) -> list[Path]:
    """Lists the tar files that a path names, compressed ones among them.

    Args:
      source: a file, which is accepted whatever its name, or a folder, which is searched together
        with all folders below it.

    Returns:
      The files, sorted; none if the folder holds none.

    Raises:
      ValueError: there is no such file or folder.
    """
    return shard_files(source, _NAMES)


def is_tar(path: Path) -> bool:
    """Tells by its name whether a file is a tar file, compressed or not.

    Args:
      path: the file.

    Returns:
      True if it is a tar file.

    Example:
      >>> is_tar(Path("00000.tar")), is_tar(Path("00000.tar.gz")), is_tar(Path("guitar.png"))
      (True, True, False)
    """
    return _NAMES.search(path.name) is not None


def _index(path: Path, skipped: list[Skipped]) -> _Shard:
    """Indexes a tar file, and adds what cannot be used to `skipped`."""
    state = file_state(path)
    names = bytearray()
    samples = np.fromiter(_samples(path, names, skipped), _SAMPLE)
    return _Shard(path, state, samples, bytes(names))


def _samples(path: Path, names: bytearray, skipped: list[Skipped]) -> Iterator[tuple]:
    """Yields the samples of a file as rows of the index, and adds their names to `names`."""
    seen: set[str] = set()
    for group in _groups(members_of(path, skipped)):
        first = next(iter(group.values()))
        if first.key in seen:
            skipped.append(_skip(path, first, "its key came before"))
            continue
        seen.add(first.key)
        match _image_and_text(group):
            case (Member() as bad, str(reason)):
                skipped.append(_skip(path, bad, reason))
            case (Member() as image, Member() as text):
                names += image.name.encode("utf-8", "surrogateescape")
                is_json = text.suffix == ".json"
                yield image.start, image.size, text.start, text.size, is_json, len(names)


def _skip(path: Path, member: Member, reason: str) -> Skipped:
    return Skipped(Path(f"{path}:{member.name}"), reason)


def _image_and_text(group: Mapping[str, Member]) -> tuple[Member, Member | str]:
    """The two parts of a sample, or the member to name and what is wrong."""
    first = next(iter(group.values()))
    image = next((group[suffix] for suffix in group if suffix in SUFFIXES), None)
    text = group.get(".txt") or group.get(".json")
    bad = next((member for member in (image, text) if member and member.problem), None)
    if bad is not None:
        return bad, bad.problem
    if image is None:
        return first, "no image"
    return (image, text) if text else (image, "no caption")


def _groups(members: Iterator[Member]) -> Iterator[dict[str, Member]]:
    """Members of one key that follow each other, by suffix; a repeated suffix begins another."""
    group: dict[str, Member] = {}
    key = None
    for member in members:
        if group and (member.key != key or member.suffix in group):
            yield group
            group = {}
        key = member.key
        group[member.suffix] = member
    if group:
        yield group


def _place(shard: _Shard, row: int) -> Path:
    start = shard.samples[row - 1]["name_end"] if row else 0
    name = shard.names[start : shard.samples[row]["name_end"]]
    return Path(f"{shard.path}:{name.decode('utf-8', 'surrogateescape')}")


def _read(shard: _Shard, row: int) -> Example:
    place = _place(shard, row)
    if trouble := trouble_with(shard.path, shard.state):
        raise ValueError(f"{place}: {trouble}")
    image, image_size, text, text_size, is_json, _ = shard.samples[row].tolist()
    try:
        # Opened for each example, so that threads share nothing and no files stay open.
        with shard.path.open("rb") as file:
            file.seek(text)
            text = file.read(text_size)
            file.seek(image)
            image = file.read(image_size)
    except OSError as error:
        raise ValueError(f"{place}: unreadable: {error.strerror}") from error
    captions = require_captions(_captions(text, is_json=is_json), place)
    return Example(decode_image(BytesIO(image), str(place)), captions=captions)


def _captions(content: bytes, *, is_json: bool) -> tuple[str, ...] | str:
    if not is_json:
        return decode_caption(content)
    row = parse_object(content)
    return row if isinstance(row, str) else clean_captions(caption_value(row))


def _matches(source: str, _: Options) -> bool:
    path = Path(source)
    return bool(tar_files(path)) if path.is_dir() else is_tar(path)


SOURCE = Source(
    "set of tar files",
    matches=_matches,
    read=lambda source, _: read_webdataset(Path(source)),
)
