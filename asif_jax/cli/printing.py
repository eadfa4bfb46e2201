"""How the command prints: text that cannot harm a terminal, JSON, and a line for what went wrong.

Captions, names and paths come from anywhere. Characters that a terminal obeys instead of showing
are printed as escapes, and so is what its encoding lacks: nothing fails after the work is done.
"""

import io
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Control characters, line separators, and what turns the direction of writing.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# JSON escapes the lower ones by itself. Names of files may have halves of characters.
_OBEYED_IN_JSON = re.compile("[\ud800-\udfff\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    r"""Text as it can be shown on one line of a terminal.

    Args:
      text: any.

    Returns:
      The text with characters that a terminal obeys as escapes.

    Example:
      >>> print(escaped("a \x1b[31mred\x1b[0m car"))
      a \x1b[31mred\x1b[0m car
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def print_lines(lines: Iterable[str]) -> None:
    """Prints text for people.

    Args:
      lines: without their ends.
    """
    for line in lines:
        print(escaped(line))


def print_json(value: Any) -> None:
    """Prints a result for programs.

    Args:
      value: what `plain` takes.
    """
    text = json.dumps(plain(value), ensure_ascii=False, indent=2)
    text = _OBEYED_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(plain(value), indent=2)
    print(text)


def plain(value: Any) -> Any:
    """What JSON takes: NamedTuples become objects, paths strings, and what is no number null.

    Args:
      value: mappings, sequences, NamedTuples, strings and numbers, within each other.

    Returns:
      Dictionaries, lists, strings and finite numbers.

    Example:
      >>> plain({"files": (Path("a.png"),), "share": float("nan")})
      {'files': ['a.png'], 'share': None}
    """
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def complain(message: str) -> None:
    """Says on stderr, in one line, why the command ends.

    Args:
      message: in any number of lines.
    """
    print(f"asif-jax: {escaped(' '.join(message.split()))}", file=sys.stderr)


def print_skipped(skipped: Iterable[Any]) -> None:
    """Names on stderr what was left out, and why.

    Args:
      skipped: of `data.Skipped`.
    """
    for item in skipped:
        print(escaped(f"skipped {item.path}: {item.reason}"), file=sys.stderr)


def let_nothing_fail_to_print() -> None:
    """Makes both streams print what their encoding lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
