"""What a store says beside embeddings: JSON that knows when it is damaged."""

import json
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from asif_jax.store.failures import StoreError


class StoredPair(NamedTuple):
    """What a pair was made of.

    Attributes:
      image: says where the image is: a file, a member of a tar, a URL.
      captions: holds its captions.
      items: names, for each further modality, the files or other items of the pair.
    """

    image: str
    captions: tuple[str, ...]
    items: tuple[tuple[str, tuple[str, ...]], ...] = ()


def line_of(pair: StoredPair | None) -> str:
    """The line of JSON that a store keeps of a row; a pair without items has no place for them.

    Args:
      pair: what the row holds, or None.

    Returns:
      The line.

    Example:
      >>> line_of(StoredPair("a.png", ("A cow.",), (("speech", ("a.wav",)),)))
      '["a.png", ["A cow."], [["speech", ["a.wav"]]]]'
    """
    fields = pair and (pair if pair.items else pair[:2])
    return json.dumps(fields, ensure_ascii=False)


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
    return _seal("\n".join(line_of(pair) for pair in pairs))


def decode(content: bytes) -> list[StoredPair | None]:
    """The rows of a block.

    Args:
      content: from `encode`.

    Returns:
      The pairs, None where a row holds none.

    Raises:
      StoreError: the block is damaged.
    """
    rows = [json.loads(line) for line in _unseal(content).split("\n")]
    return [row and _pair_of(*row) for row in rows]


def _pair_of(image: str, captions: list[str], items: Sequence[Any] = ()) -> StoredPair:
    named = tuple((modality, tuple(references)) for modality, references in items)
    return StoredPair(image, tuple(captions), named)


def pack(value: Any) -> bytes:
    r"""A value after a line with its checksum.

    Args:
      value: what JSON takes.

    Returns:
      The bytes to keep.

    Example:
      >>> pack([1, "two"])
      b'bb6d12be\n[1, "two"]'
    """
    return _seal(json.dumps(value, ensure_ascii=False))


def unpack(content: bytes) -> Any:
    """The value that was packed.

    Args:
      content: from `pack`.

    Raises:
      StoreError: it is damaged.
    """
    return json.loads(_unseal(content))


def seal(content: bytes) -> bytes:
    """Bytes after a line with their checksum.

    Args:
      content: any bytes.

    Returns:
      The bytes to keep.
    """
    return b"%08x\n" % zlib.crc32(content) + content


def unseal(content: bytes) -> bytes:
    """The bytes that were sealed.

    Args:
      content: from `seal`.

    Returns:
      The bytes.

    Raises:
      StoreError: they are damaged.
    """
    checksum, _, inner = content.partition(b"\n")
    if checksum != b"%08x" % zlib.crc32(inner):
        raise StoreError("damaged: a checksum does not match")
    return inner


def _seal(text: str) -> bytes:
    # File names need not be UTF-8, and JSON lets lone surrogates in.
    return seal(text.encode("utf-8", "surrogatepass"))


def _unseal(content: bytes) -> str:
    return unseal(content).decode("utf-8", "surrogatepass")
