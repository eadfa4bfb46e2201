"""Captions as people keep them, cleaned and checked in one way in sets of every form."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CAPTION_KEYS = ("captions", "caption", "texts", "text")

# Far beyond any caption: what is longer is a page, a log or an encoded file.
_MOST_CHARACTERS = 10_000

# Halves of characters, which JSON can hold and UTF-8 cannot.
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_captions(value: object) -> tuple[str, ...] | str:
    """The captions in what a file holds under the name of a caption.

    Args:
      value: a string or a list; what is no string in it does not count.

    Returns:
      The captions, white space made single spaces, those left empty dropped; or the reason why
      there are none.

    Example:
      >>> clean_captions(["A  dog.", " ", None])
      ('A dog.',)
      >>> clean_captions("word " * 4000)
      'caption of 19,999 characters'
    """
    values = value if isinstance(value, list | tuple) else [value]
    texts = [_clean(text) for text in values if isinstance(text, str)]
    longest = max(map(len, texts), default=0)
    if longest > _MOST_CHARACTERS:
        return f"caption of {longest:,} characters"
    return tuple(text for text in texts if text) or "no caption"


def caption_value(row: Mapping[str, Any]) -> object:
    """What a row holds under the first of the usual names of a caption that says anything.

    Args:
      row: column -> value.

    Returns:
      The value, for `clean_captions`; None if there is none.

    Example:
      >>> caption_value({"text": "A dog.", "caption": ""})
      'A dog.'
    """
    return next((row[key] for key in CAPTION_KEYS if row.get(key)), None)


def decode_caption(content: bytes) -> tuple[str, ...] | str:
    """The caption that a text file is.

    Args:
      content: of the file.

    Returns:
      As `clean_captions`.

    Example:
      >>> decode_caption("Ein Käfer.".encode("latin-1"))
      'caption is not UTF-8'
    """
    try:
        return clean_captions(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "caption is not UTF-8"


def parse_object(content: bytes) -> dict[str, Any] | str:
    """Parses a JSON object from wherever it comes.

    Args:
      content: UTF-8.

    Returns:
      The object, or what is wrong with it.

    Example:
      >>> parse_object(b"[1]")
      'not a JSON object'
    """
    try:
        value = json.loads(content.decode("utf-8-sig"))
    # Brackets nested by the thousand, and numbers of as many digits, fail in ways of their own.
    except (ValueError, RecursionError):
        return "not JSON in UTF-8"
    return value if isinstance(value, dict) else "not a JSON object"


def require_captions(captions: tuple[str, ...] | str, place: Path) -> tuple[str, ...]:
    """Insists on captions, where an example is read by its number.

    Args:
      captions: from `clean_captions` or `decode_caption`.
      place: what to call the example.

    Returns:
      The captions.

    Raises:
      ValueError: there are none; names the place and the cause.
    """
    if isinstance(captions, str):
        raise ValueError(f"{place}: {captions}")
    return captions


def _clean(text: str) -> str:
    return _SURROGATES.sub("\ufffd", " ".join(text.split()))
