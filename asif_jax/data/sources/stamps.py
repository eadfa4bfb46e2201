"""The photographs of Tux Paint's stamps, which every large distribution packages.

A drawing program for children brings hundreds of photographs cut out on transparency, each with its
name in many languages: `X.png` and `X.txt`, whose first line is the English caption.
"""

from pathlib import Path

from asif_jax.data.images import images_below
from asif_jax.data.pairs import Pair, PairList, Skipped
from asif_jax.data.sources.folder import check_pair, read_caption

_DIRECTORIES = (Path("/usr/share/tuxpaint/stamps"), Path("/usr/local/share/tuxpaint/stamps"))


def read_stamps(directory: Path | None = None) -> PairList:
    """Reads the stamps, without symbols and cartoons.

    Args:
      directory: where the stamps are; by default where packages install them.

    Returns:
      The pairs, sorted by path; the group is the topic, such as "animals".

    Raises:
      ValueError: the stamps are not installed; says what to install.
    """
    candidates = _DIRECTORIES if directory is None else (directory,)
    root = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if root is None:
        raise ValueError(
            f"no stamps in {candidates[0]}: install the package tuxpaint-stamps-default "
            "(Debian, Ubuntu) or tuxpaint-stamps"
        )
    found = [
        check_pair(image, read_caption(image.with_suffix(".txt"), first_line=True), root=root)
        for image in images_below(root)
        if _is_photograph(image.relative_to(root))
    ]
    pairs = tuple(item for item in found if isinstance(item, Pair))
    if not pairs:
        raise ValueError(f"no stamps in {root}")
    return PairList(pairs, tuple(item for item in found if isinstance(item, Skipped)))


def _is_photograph(path: Path) -> bool:
    # A few stamps come mirrored as well, under the caption of the original.
    return (
        path.parts[0] != "symbols"
        and "cartoon" not in path.parts
        and not path.stem.endswith("_mirror")
    )
