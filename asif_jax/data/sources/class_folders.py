"""Labelled images from a folder that holds one folder per class."""

from collections.abc import Iterable
from pathlib import Path

from asif_jax.data.image_set import Example, ImageSet, file_state, fingerprint
from asif_jax.data.images import images_below, open_image
from asif_jax.data.pairs import Skipped, group_of
from asif_jax.data.sources.source import Options, Source


def read_class_folders(directory: Path) -> ImageSet:
    """Reads labelled images from a folder that holds one folder per class.

    Args:
      directory: the folder. Those folders in it that hold images, at any depth, are the classes.

    Returns:
      The images, class by class. The classes are sorted, and called as their folders are.

    Raises:
      ValueError: there are fewer than two such folders.
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


def _classes(groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({group for group in groups if group and not group.startswith(".")}))


def _matches(source: str, options: Options) -> bool:
    """Whether images lie in at least two folders, or the user names classes for a folder."""
    directory = Path(source)
    if not directory.is_dir():
        return False
    if options.labels_file is not None:
        return True
    return len(_classes(group_of(image, directory) for image in images_below(directory))) > 1


SOURCE = Source(
    "folder with one folder per class",
    matches=_matches,
    read=lambda source, _: read_class_folders(Path(source)),
)
