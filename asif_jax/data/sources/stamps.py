"""The photographs among the stamps of Tux Paint, which every large distribution of Linux packages.

Tux Paint is a drawing program for children. It comes with hundreds of photographs of single things
on a transparent background, each with its name in many languages: `X.png` lies beside `X.txt`, the
first line of which is the English caption.
"""

from pathlib import Path

from asif_jax.data.image_set import ImageSet, captioned
from asif_jax.data.images import images_below
from asif_jax.data.pairs import Pair, PairList, Skipped
from asif_jax.data.sources.folder import check_pair, read_caption
from asif_jax.data.sources.source import Source

_PREFIX = "stamps:"

_DIRECTORIES = (Path("/usr/share/tuxpaint/stamps"), Path("/usr/local/share/tuxpaint/stamps"))


def read_stamps(directory: Path | None = None) -> PairList:
    """Reads the stamps, without symbols and cartoons.

    Args:
      directory: the folder of the stamps; by default where packages install them.

    Returns:
      The pairs, sorted by path. The group of a pair is its topic, such as "animals".

    Raises:
      ValueError: the stamps are not installed; the message says what to install.
    """
    root = _find(directory)
    found = [
        check_pair(image, read_caption(image.with_suffix(".txt"), first_line=True), root=root)
        for image in images_below(root)
        if _is_photograph(image.relative_to(root))
    ]
    pairs = tuple(item for item in found if isinstance(item, Pair))
    if not pairs:
        raise ValueError(f"no stamps in {root}")
    return PairList(pairs, tuple(item for item in found if isinstance(item, Skipped)))


def _find(directory: Path | None) -> Path:
    """The folder of the stamps, as named or where packages install them."""
    candidates = _DIRECTORIES if directory is None else (directory,)
    root = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if root is None:
        raise ValueError(
            f"no stamps in {candidates[0]}: install the package tuxpaint-stamps-default "
            "(Debian, Ubuntu) or tuxpaint-stamps"
        )
    return root


def _is_photograph(path: Path) -> bool:
    # A few stamps also come mirrored, with the caption of the original.
    return (
        path.parts[0] != "symbols"
        and "cartoon" not in path.parts
        and not path.stem.endswith("_mirror")
    )


def _read(source: str) -> ImageSet:
    """The stamps of "stamps:", or those in the folder of "stamps:FOLDER"."""
    name = source.removeprefix(_PREFIX)
    root = _find(Path(name) if name else None)
    return captioned(root, read_stamps(root))


SOURCE = Source(
    "set of stamps (stamps:)",
    matches=lambda source, _: source.startswith(_PREFIX),
    read=lambda source, _: _read(source),
)
