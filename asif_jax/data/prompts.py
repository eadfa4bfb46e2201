"""Sentences that put a class into words."""

from collections.abc import Sequence
from pathlib import Path

# The bare word, then sentences in which captions of photographs often put it.
GENERAL = (
    "{}",
    "a {}.",
    "the {}.",
    "a photo of a {}.",
    "a picture of the {}.",
    "a close view of a {}.",
    "a {} seen from afar.",
    "there is a {} in the picture.",
)


def sentences(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Puts every class into every template.

    Args:
      classes: the names of the classes.
      templates: sentences with {} in the place of the name.

    Returns:
      The sentences, class by class.

    Raises:
      ValueError: there is no class or no template, or a template has no {}.

    Example:
      >>> sentences(["cat", "dog"], ["{}", "a {}."])
      ['cat', 'a cat.', 'dog', 'a dog.']
    """
    if not classes:
        raise ValueError("no labels to choose from")
    if not templates:
        raise ValueError("no template to put a label in")
    if unusable := [template for template in templates if "{}" not in template]:
        raise ValueError(f"a template must hold {{}} in the place of the label: {unusable[0]!r}")
    return [template.replace("{}", name) for name in classes for template in templates]


def read_templates(path: Path) -> tuple[str, ...]:
    """Reads templates from a file.

    Args:
      path: a text file with one template per line, each with {} in the place of the class. Empty
        lines do not count.

    Returns:
      The templates.

    Raises:
      ValueError: there is no template, one has no {}, or the file is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8") from error
    templates = tuple(line.strip() for line in lines if line.strip())
    try:
        sentences(("",), templates)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return templates
