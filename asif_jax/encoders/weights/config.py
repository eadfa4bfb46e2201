"""Reads a checkpoint's config.json and takes the sizes that an architecture needs from it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def read_json(path: Path, *, kind: type = dict) -> Any:
    """Reads a JSON file.

    Args:
      path: the file.
      kind: the type that its content must have, dict or list.

    Returns:
      Its content.

    Raises:
      ValueError: it is missing, is not JSON, or holds another type; the message names it.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}")
    return content


def sizes(cls: type[T], config: Mapping[str, Any]) -> T:
    """Fills a dataclass from the entries of the same names.

    Args:
      cls: a dataclass; a field without default is required.
      config: the content of config.json, or a part of it.

    Returns:
      The dataclass.

    Raises:
      ValueError: an entry is missing; names it.

    Example:
      >>> @dataclasses.dataclass
      ... class Width:
      ...     hidden_size: int
      ...     bias: bool = True
      >>> sizes(Width, {"hidden_size": 4, "model_type": "x"})
      Width(hidden_size=4, bias=True)
    """
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    required = [field.name for field in fields if field.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in config]:
        raise ValueError(f"the configuration lacks {', '.join(missing)}")
    return cls(**{field.name: config[field.name] for field in fields if field.name in config})
