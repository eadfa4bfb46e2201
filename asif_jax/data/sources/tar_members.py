"""Which files a tar file holds and where they lie in it, however damaged or hostile it is."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from asif_jax.data.pairs import Skipped, leads_outside

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")

# Members are read into memory whole; no image within the limit of pixels is larger than this.
_MOST_BYTES = 2**30


class Member(NamedTuple):
    """A file in a tar file.

    Attributes:
      name: is its path in the tar file.
      key: is the path up to the first dot of the file name, which the parts of a sample share.
      suffix: is the rest of the file name, in lower case.
      start: is the place of its first byte in the tar file.
      size: is its number of bytes.
      problem: says why it cannot be used, and is empty if it can.
    """

    name: str
    key: str
    suffix: str
    start: int
    size: int
    problem: str


def members_of(path: Path, skipped: list[Skipped]) -> Iterator[Member]:
    """Goes through the files in a tar file, by their headers alone.

    Args:
      path: the tar file.
      skipped: gets what is wrong with the tar file itself, such as a missing end.

    Yields:
      The files up to the first damaged header, without folders and hidden files.
    """
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
    """The headers up to the first damaged one, each with the place of the header after it."""
    following = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while following < size:
                file.seek(following)
                # Unlike next(), this keeps no list of all members.
                info = tarfile.TarInfo.fromtarfile(tar)
                # A damaged size can be negative, which would lead back here forever.
                if info.size < 0 or tar.offset <= following:
                    return
                following = tar.offset
                yield info, following
    # Damaged headers make tarfile raise errors of many types besides its own.
    except (tarfile.TarError, ArithmeticError, LookupError, ValueError, RecursionError):
        return


def _untimely_end(file: BinaryIO, end: int) -> str:
    """What is wrong at the place where no header follows; empty at the proper end of a file."""
    file.seek(0)
    if end == 0 and file.read(6).startswith(_COMPRESSED):
        return "compressed, so that no image can be read by its number; unpack it first"
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) == tarfile.BLOCKSIZE and not any(block):
        return ""
    return f"cut short or damaged at byte {end:,}" if end else "not a tar file, or an empty one"


def _member(info: tarfile.TarInfo, file_size: int) -> Member | None:
    """The file that a header describes; None for a folder or a hidden file."""
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
    return Member(info.name, key, suffix, info.offset_data, info.size, problem)
