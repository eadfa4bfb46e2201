"""How the classes of a labelled set are called in a sentence."""

import re
from collections.abc import Sequence
from pathlib import Path


def name_classes(classes: Sequence[str], labels_file: Path | None) -> tuple[str, ...]:
    """Says how the classes of a set are called in a sentence.

    Args:
      classes: the names that the set uses, such as "aquarium_fish" or "AnnualCrop".
      labels_file: a text file. It holds either one name per line, in the order of the classes, or
        lines of class, tab, name in any order. Without a file each class gets its `spoken_name`.

    Returns:
      The names, in the order of the classes.

    Raises:
      ValueError: names are missing, there are too many, or the file is not UTF-8; or there is no
        labels file and the classes are WordNet ids, as those of ImageNet are.

    Example:
      >>> name_classes(["aquarium_fish", "AnnualCrop"], None)
      ('aquarium fish', 'annual crop')
    """
    if labels_file is not None:
        return _names_from_file(classes, labels_file)
    if all(re.fullmatch(r"n\d{8}", name) for name in classes):
        raise ValueError(
            f"the classes are WordNet ids ({classes[0]}, ...), which mean nothing to a text "
            "encoder: give their names in a labels file"
        )
    return tuple(map(spoken_name, classes))


def spoken_name(name: str) -> str:
    """Turns the name of a class into words that fit into a sentence.

    Args:
      name: the name that the class has in the metadata of its set, or that its folder has.

    Returns:
      The words.

    Example:
      >>> spoken_name("american_bulldog"), spoken_name("SeaLake"), spoken_name("Bengal")
      ('american bulldog', 'sea lake', 'Bengal')
    """
    words = " ".join(name.replace("_", " ").split()) or name
    if re.fullmatch(r"([A-Z][a-z]{2,}){2,}", words):
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words).lower()
    return words


def _names_from_file(classes: Sequence[str], path: Path) -> tuple[str, ...]:
    """The names in a labels file, in the order of the classes."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8") from error
    lines = [line for line in lines if line]
    if lines and all("\t" in line for line in lines):
        named = {key: name.strip() for key, _, name in (line.partition("\t") for line in lines)}
        if missing := [name for name in classes if not named.get(name)]:
            raise ValueError(f"{path} names {len(named)} classes, but not {missing[0]!r}")
        return tuple(named[name] for name in classes)
    if len(lines) != len(classes):
        raise ValueError(f"{path} holds {len(lines)} names for {len(classes)} classes")
    return tuple(lines)
