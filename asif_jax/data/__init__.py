"""Image-text pairs, from where people keep them."""

from asif_jax.data.folder import read_folder
from asif_jax.data.images import image_files, open_image
from asif_jax.data.pairs import Pair, PairList, Skipped
from asif_jax.data.stamps import read_stamps

__all__ = [
    "Pair",
    "PairList",
    "Skipped",
    "image_files",
    "open_image",
    "read_folder",
    "read_stamps",
]
