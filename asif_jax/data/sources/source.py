"""What a kind of source offers, and the options with which a user reads one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from asif_jax.data.image_set import ImageSet


class Options(NamedTuple):
    """What a user may say beside the name of a source; what is empty was not said.

    Attributes:
      split: names the part of the set to read.
      data_dir: is the folder in which a library keeps its sets.
      feature: names the part of a record that holds the label or the captions.
      labels_file: names the classes, so the user wants classes rather than captions.
      modalities: names what else to read of every example, such as "speech".
    """

    split: str | None = None
    data_dir: Path | None = None
    feature: str | None = None
    labels_file: Path | None = None
    modalities: tuple[str, ...] = ()


# Every set that turns out to have classes can use these; `read_set` sees to them.
_FOR_EVERY_KIND = ("labels_file",)


class Source(NamedTuple):
    """One kind of source, such as folders or tar files.

    Attributes:
      kind: says what a source of this kind is, as in "a captioned folder", without the article.
      matches: tells whether a source, named as the user names it, is of this kind.
      read: reads a source of this kind. It is called only where `matches` said yes, and raises
        ValueError if nothing in the source is usable.
      options: names the fields of `Options` that apply to this kind; others are refused.
    """

    kind: str
    matches: Callable[[str, Options], bool]
    read: Callable[[str, Options], ImageSet]
    options: tuple[str, ...] = ()


def option_to_refuse(options: Options, applicable: tuple[str, ...]) -> str | None:
    """Finds an option that was given although it does not apply.

    Args:
      options: what the user gave.
      applicable: the names of the options that apply.

    Returns:
      The name of the first option that does not apply, None if all do.

    Example:
      >>> option_to_refuse(Options(split="test"), ("split",))
      >>> option_to_refuse(Options(split="test"), ())
      'split'
    """
    given = (name for name, value in options._asdict().items() if value)
    return next((name for name in given if name not in (*applicable, *_FOR_EVERY_KIND)), None)
