"""Labelled images from a folder that holds one folder a class, and how classes are called."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from asif_jax.data.image_set import Example, ImageSet, file_state, fingerprint
from asif_jax.data.images import images_below, open_image
from asif_jax.data.pairs import Skipped, group_of


def read_class_folders(directory: Path) -> ImageSet:
    """Reads labelled images from folders, one a class.

    Args:
      directory: its folders that hold images, at any depth, are the classes, sorted by name.

    Returns:
      The images class by class; the classes under the names of their folders.

    Raises:
      ValueError: fewer than two such folders.
    """
    images = images_below(directory)
    groups = [group_of(image, directory) for image in images]
    classes = _classes(groups)
    if len(classes) < 2:
        raise ValueError(
            f"no labelled images in {directory}: a folder for each class is needed, "
            f"at least two that hold images, and {len(classes)} is there"
        )
    index_of = {name: index for index, name in enumerate(classes)}
    members = [
        (image, index_of[g]) for image, g in zip(images, groups, strict=True) if g in index_of
    ]
    outside = [image for image, group in zip(images, groups, strict=True) if not group]

    def read(index: int) -> Example:
        image, label = members[index]
        return Example(open_image(image), label)

    return ImageSet(
        source=str(directory.resolve()),
        identity=fingerprint(
            (str(image.relative_to(directory)), file_state(image)) for image, _ in members
        ),
        size=len(members),
        read=read,
        place=lambda index: members[index][0],
        classes=classes,
        skipped=tuple(Skipped(image, "in no folder of a class") for image in outside),
    )


def has_class_folders(directory: Path) -> bool:
    """Whether images lie in folders that could be classes.

    Args:
      directory: the folder of these.

    Returns:
      Whether there are at least two.
    """
    return len(_classes(group_of(image, directory) for image in images_below(directory))) > 1


def _classes(groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({group for group in groups if group and not group.startswith(".")}))


def name_classes(classes: Sequence[str], labels_file: Path | None) -> tuple[str, ...]:
    """How the classes of a set are called in a sentence.

    Args:
      classes: as the set calls them, such as "aquarium_fish" or "AnnualCrop".
      labels_file: a file with one name a line, in the order of the classes, or with lines of
        class, tab, name in any order. By default `spoken_name` of each.

    Returns:
      The names.

    Raises:
      ValueError: names that are missing, too many or not UTF-8, or no labels file where the
        classes are WordNet ids, as ImageNet's are.

    Example:
      >>> name_classes(["aquarium_fish", "AnnualCrop"], None)
      ('aquarium fish', 'annual crop')
    """
    if labels_file is not None:
        return _names_from_file(classes, labels_file)
    if all(re.fullmatch(r"n\d{8}", name) for name in classes):
        raise ValueError(
            f"the classes are WordNet ids ({classes[0]}, ...), which say nothing to a text "
            "encoder: give their names in a labels file"
        )
    return tuple(map(spoken_name, classes))


def spoken_name(name: str) -> str:
    """A class as people would say it: "aquarium_fish" and "AnnualCrop" in words.

    Args:
      name: the name in a set's metadata, or of a folder.

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
