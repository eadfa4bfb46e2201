"""How the command prints: facts, what was skipped, JSON."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any


def print_skipped(skipped: Iterable[Any]) -> None:
    """Names on stderr what was left out, and why.

    Args:
      skipped: of `data.Skipped`.
    """
    for item in skipped:
        print(f"skipped {item.path}: {item.reason}", file=sys.stderr)


def facts_in_lines(facts: Mapping[str, Any]) -> str:
    """Facts for a terminal.

    Args:
      facts: name -> value.

    Returns:
      One line each.
    """
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def plain(value: Any) -> Any:
    """What JSON takes: NamedTuples become dictionaries.

    Args:
      value: tuples, lists and NamedTuples of each other.

    Returns:
      Dictionaries and lists.
    """
    if hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def print_result(value: Any, *, as_json: bool) -> None:
    """Prints text, or what JSON takes.

    Args:
      value: either.
      as_json: which.
    """
    print(json.dumps(value, ensure_ascii=False, indent=2) if as_json else value)
