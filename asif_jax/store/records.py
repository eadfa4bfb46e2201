"""What a store says of its pairs: blocks of JSON lines that know when they are damaged."""

import json
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from asif_jax.store.failures import StoreError


class StoredPair(NamedTuple):
    """What a pair was made of.

    Attributes:
      image: where the image is: a file, a member of a tar, a URL.
      captions: its captions.
    """

    image: str
    captions: tuple[str, ...]


def encode(pairs: Sequence[StoredPair | None]) -> bytes:
    """One JSON line a row, after a line with their checksum.

    Args:
      pairs: a block of rows; None where a row holds no pair.

    Returns:
      The bytes to keep.

    Example:
      >>> encode([StoredPair("a.png", ("A cow.",)), None]).splitlines()[1:]
      [b'["a.png", ["A cow."]]', b'null']
    """
    lines = (json.dumps(pair, ensure_ascii=False) for pair in pairs)
    # File names need not be UTF-8, and JSON lets lone surrogates in.
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    return b"%08x\n" % zlib.crc32(content) + content


def decode(content: bytes) -> list[StoredPair | None]:
    """The rows of a block.

    Args:
      content: from `encode`.

    Returns:
      The pairs, None where a row holds none.

    Raises:
      StoreError: the block is damaged.
    """
    checksum, _, lines = content.partition(b"\n")
    if checksum != b"%08x" % zlib.crc32(lines):
        raise StoreError("the checksum of its captions does not match")
    rows = [json.loads(line) for line in lines.decode("utf-8", "surrogatepass").split("\n")]
    return [row and StoredPair(row[0], tuple(row[1])) for row in rows]
