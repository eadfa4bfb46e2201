"""Captions as people keep them, cleaned and checked in the same way for every kind of source."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CAPTION_KEYS = ("captions", "caption", "texts", "text")

# Far beyond any caption: what is longer is a page, a log or an encoded file.
_MOST_CHARACTERS = 10_000

# Surrogates are halves of characters, which JSON can hold and UTF-8 cannot.
_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_captions(value: object) -> tuple[str, ...] | str:
    """Cleans what a file holds under the name of a caption.

    Args:
      value: a string, or a list in which only the strings count.

    Returns:
      The captions, with every run of white space made one space and without those that are then
      empty; or the reason why there are none.

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
    """Finds the captions in a row: the first of the columns usually called so that is not empty.

    Args:
      row: a mapping from columns to values.

    Returns:
      The value, which `clean_captions` cleans; None if there is none.

    Example:
      >>> caption_value({"text": "A dog.", "caption": ""})
      'A dog.'
    """
    return next((row[key] for key in CAPTION_KEYS if row.get(key)), None)


def decode_caption(content: bytes) -> tuple[str, ...] | str:
    """Decodes a text file the whole of which is one caption.

    Args:
      content: the bytes of the file.

    Returns:
      The caption, or the reason why there is none, as from `clean_captions`.

    Example:
      >>> decode_caption("Ein Käfer.".encode("latin-1"))
      'caption is not UTF-8'
    """
    try:
        return clean_captions(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "caption is not UTF-8"


def parse_object(content: bytes) -> dict[str, Any] | str:
    """Parses a JSON object that may be damaged or hostile.

    Args:
      content: the bytes of a text in UTF-8.

    Returns:
      The object, or what is wrong with it.

    Example:
      >>> parse_object(b"[1]")
      'not a JSON object'
    """
    try:
        value = json.loads(content.decode("utf-8-sig"))
    # Thousands of nested brackets raise RecursionError, and numbers of too many digits ValueError.
    except (ValueError, RecursionError):
        return "not JSON in UTF-8"
    return value if isinstance(value, dict) else "not a JSON object"


def require_captions(captions: tuple[str, ...] | str, place: Path) -> tuple[str, ...]:
    """Raises an error if there are no captions; for examples that are read by their number.

    Args:
      captions: what `clean_captions` or `decode_caption` returned.
      place: what to call the example in the error.

    Returns:
      The captions.

    Raises:
      ValueError: there are no captions; the message names the place and the cause.
    """
    if isinstance(captions, str):
        raise ValueError(f"{place}: {captions}")
    return captions


def _clean(text: str) -> str:
    return _SURROGATES.sub("\ufffd", " ".join(text.split()))
