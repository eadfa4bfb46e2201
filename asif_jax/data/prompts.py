"""Sentences that put a class into words."""

from collections.abc import Sequence
from pathlib import Path

# Our own: the bare word, then frames that captions of photographs often have.
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
    """Every class in every template.

    Args:
      classes: names.
      templates: sentences with {} in the place of the name.

    Returns:
      The sentences, class by class.

    Raises:
      ValueError: no class, no template, or a template without {}.

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
      path: one a line, with {} in the place of the class; empty lines do not count.

    Returns:
      The templates.

    Raises:
      ValueError: no template, one without {}, or a file that is not UTF-8.
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
