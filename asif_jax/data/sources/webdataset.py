"""Pairs in tar files, as img2dataset and WebDataset write them, read where they lie.

The headers are read once. After that an example costs two reads at known places, wherever a job
starts; the index takes some 45 bytes a pair.
"""

import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

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
from asif_jax.data.pairs import Skipped, leads_outside
from asif_jax.data.sources.shards import shard_files, sharded, trouble_with

# Compressed ones too: they are not overlooked but named.
_NAMES = re.compile(r"\.(tar(\.(gz|bz2|xz|zst))?|tgz|tbz2?|txz)$", re.IGNORECASE)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")

# Members are read whole; no image within the limit of pixels needs more.
_MOST_BYTES = 2**30

# Where the image and the caption of a sample lie, and where its name ends among those of all.
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


class _Member(NamedTuple):
    """A file in a tar file; `problem` says why it cannot be used, if so."""

    name: str
    key: str
    suffix: str
    start: int
    size: int
    problem: str


class _Shard(NamedTuple):
    """The usable samples of a tar file; `names` are the paths of their images, joined."""

    path: Path
    state: str
    samples: np.ndarray
    names: bytes


def read_webdataset(source: Path) -> ImageSet:
    """Reads the captioned images of tar files.

    Args:
      source: a tar file, or a folder that holds some, at any depth. Members that follow each other
        and have one key, their path up to the first dot of the name, are a sample: an image, and
        its caption in .txt or else in .json, under `caption` or `text`.

    Returns:
      The images, in the order of the files, sorted by path, and of their members. `skipped` names
      what is damaged, samples that lack a part, and those whose key came before in the same file.

    Raises:
      ValueError: no such source, or nothing usable in it, such as compressed files alone.
    """
    files = tar_files(source)
    skipped: list[Skipped] = []
    shards = [_index(path, skipped) for path in files]
    return sharded(
        source,
        files,
        [len(shard.samples) for shard in shards],
        read=lambda number, row: _read(shards[number], row),
        place=lambda number, row: _place(shards[number], row),
        skipped=skipped,
    )


def tar_files(source: Path) -> list[Path]:
    """The tar files that a path names, compressed ones among them.

    Args:
      source: a file, which is taken as it is, or a folder, which is searched with all below it.

    Returns:
      The files, sorted; none in a folder without.

    Raises:
      ValueError: no such file or folder.
    """
    return shard_files(source, _NAMES)


def is_tar(path: Path) -> bool:
    """Whether a file is a tar file by its name, compressed or not.

    Args:
      path: the file.

    Returns:
      Whether it is.

    Example:
      >>> is_tar(Path("00000.tar")), is_tar(Path("00000.tar.gz")), is_tar(Path("guitar.png"))
      (True, True, False)
    """
    return _NAMES.search(path.name) is not None


def _index(path: Path, skipped: list[Skipped]) -> _Shard:
    """Looks through a tar file; what cannot be used is added to `skipped`."""
    state = file_state(path)
    names = bytearray()
    samples = np.fromiter(_samples(path, names, skipped), _SAMPLE)
    return _Shard(path, state, samples, bytes(names))


def _samples(path: Path, names: bytearray, skipped: list[Skipped]) -> Iterator[tuple]:
    """The samples of a file as rows of the index; the names are added to `names`."""
    seen: set[str] = set()
    for group in _groups(_members(path, skipped)):
        first = next(iter(group.values()))
        if first.key in seen:
            skipped.append(_skip(path, first, "its key came before"))
            continue
        seen.add(first.key)
        match _image_and_text(group):
            case (_Member() as bad, str(reason)):
                skipped.append(_skip(path, bad, reason))
            case (_Member() as image, _Member() as text):
                names += image.name.encode("utf-8", "surrogateescape")
                is_json = text.suffix == ".json"
                yield image.start, image.size, text.start, text.size, is_json, len(names)


def _skip(path: Path, member: _Member, reason: str) -> Skipped:
    return Skipped(Path(f"{path}:{member.name}"), reason)


def _image_and_text(group: Mapping[str, _Member]) -> tuple[_Member, _Member | str]:
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


def _groups(members: Iterator[_Member]) -> Iterator[dict[str, _Member]]:
    """Members of one key that follow each other, by suffix; one that comes again begins anew."""
    group: dict[str, _Member] = {}
    key = None
    for member in members:
        if group and (member.key != key or member.suffix in group):
            yield group
            group = {}
        key = member.key
        group[member.suffix] = member
    if group:
        yield group


def _members(path: Path, skipped: list[Skipped]) -> Iterator[_Member]:
    """The files in a tar file; if it ends before its time, that is added to `skipped`."""
    end = 0
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for info, following in _headers(file, size):
                end = min(following, size)
                if member := _member(info, size):
                    yield member
            if reason := _untimely_end(file, end):
                skipped.append(Skipped(path, reason))
    except OSError as error:
        skipped.append(Skipped(path, f"unreadable: {error.strerror}"))


def _headers(file: BinaryIO, size: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """The headers up to the first that is damaged, each with the place of the following one."""
    following = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while following < size:
                file.seek(following)
                # Unlike next(), this keeps no list of all members.
                info = tarfile.TarInfo.fromtarfile(tar)
                # A damaged size can be negative, and lead back again and again.
                if info.size < 0 or tar.offset <= following:
                    return
                following = tar.offset
                yield info, following
    # Damaged headers make tarfile raise errors of other types than its own.
    except (tarfile.TarError, ArithmeticError, LookupError, ValueError, RecursionError):
        return


def _untimely_end(file: BinaryIO, end: int) -> str:
    """What is wrong where no header follows; nothing at the mark that ends a tar file."""
    file.seek(0)
    if end == 0 and file.read(6).startswith(_COMPRESSED):
        return "compressed, so that no image can be read by its number; unpack it first"
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) == tarfile.BLOCKSIZE and not any(block):
        return ""
    return f"cut short or damaged at byte {end:,}" if end else "not a tar file, or an empty one"


def _member(info: tarfile.TarInfo, file_size: int) -> _Member | None:
    """What a header says of a file; None for a folder or a hidden file."""
    folder, slash, base = info.name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if info.isdir() or not stem:
        return None
    if info.issym() or info.islnk():
        problem = "a link, which is not followed"
    elif not info.isreg() or info.issparse():
        problem = "not a plain file"
    elif leads_outside(info.name):
        problem = "its path leads outside the tar file"
    elif info.offset_data + info.size > file_size:
        problem = "cut short"
    elif info.size > _MOST_BYTES:
        problem = f"{info.size:,} bytes are too many"
    else:
        problem = ""
    key, suffix = folder + slash + stem, (dot + suffix).lower()
    return _Member(info.name, key, suffix, info.offset_data, info.size, problem)


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
        # Opened anew for each: threads share nothing, and no number of files stays open.
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
