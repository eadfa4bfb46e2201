"""Encoders that a function of the user's own module returns."""

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from asif_jax.encoders.encoder import Encoder


def names_function(name: str) -> bool:
    """Tells whether a name has the form "module:function".

    Args:
      name: what a user asked for.

    Returns:
      True for Python names with one colon between them; both may be dotted.

    Example:
      >>> names_function("my.speech:encoder"), names_function("facebook/dino-vits16@v1:0")
      (True, False)
    """
    return bool(re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name))


def encoder_of_function(name: str, *, modality: str | None = None) -> Encoder:
    """Calls a function, without arguments, that returns an encoder.

    Args:
      name: "module:function". The module may lie in the current directory.
      modality: what the encoder must be of; by default anything.

    Returns:
      The encoder.

    Raises:
      ValueError: the module cannot be imported or has no such function, or what the function
        returns is no encoder, or one of another modality. What the function itself raises is passed
        on.
    """
    encoder = _function(name)()
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"{name} must return an asif_jax.encoders.Encoder: it returned a "
            f"{type(encoder).__name__}"
        )
    if modality not in (None, encoder.modality):
        raise ValueError(f"{name} encodes {encoder.modality}, not {modality}")
    return encoder


def _function(name: str) -> Callable[[], Any]:
    module_name, _, path = name.partition(":")
    try:
        with _current_directory_importable():
            found = importlib.import_module(module_name)
    # A module may raise anything when it is imported.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{name}: cannot import {module_name}: {reason}") from error
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{name}: {module_name} has no function {path}")
    return found


@contextlib.contextmanager
def _current_directory_importable() -> Iterator[None]:
    """Puts the current directory first on the path of imports, as `python -m` does, for a while."""
    directory = os.getcwd()
    sys.path.insert(0, directory)
    # The module may have been written since the directory was last looked at.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(directory)
