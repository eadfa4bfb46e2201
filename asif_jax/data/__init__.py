"""Captioned and labelled images, and what goes with them, read from where people keep them."""

from asif_jax.data.image_set import Example, ImageSet
from asif_jax.data.images import image_files, open_image
from asif_jax.data.pairs import Pair, PairList, Skipped
from asif_jax.data.sources.folder import read_folder
from asif_jax.data.sources.parquet import read_parquet
from asif_jax.data.sources.reading import read_set
from asif_jax.data.sources.stamps import read_stamps
from asif_jax.data.sources.webdataset import read_webdataset

__all__ = [
    "Example",
    "ImageSet",
    "Pair",
    "PairList",
    "Skipped",
    "image_files",
    "open_image",
    "read_folder",
    "read_parquet",
    "read_set",
    "read_stamps",
    "read_webdataset",
]
