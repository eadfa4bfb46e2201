"""The kinds of sources. A new kind is a new file in this folder and a line here."""

from asif_jax.data.sources import class_folders, folder, parquet, stamps, tfds, webdataset
from asif_jax.data.sources.source import Source

# The first kind that matches reads the source, so the order says what a mixed folder counts as:
# captions come first, then class folders before the archives that they were unpacked from, and tar
# files before Parquet, because img2dataset writes tables without images beside its tar files.
SOURCES: tuple[Source, ...] = (
    tfds.SOURCE,
    stamps.SOURCE,
    folder.SOURCE,
    class_folders.SOURCE,
    webdataset.SOURCE,
    parquet.SOURCE,
)
