"""Embeds generated images into a store, which it makes if need be: STORE IMAGES.

Writes a byte to stdout when it starts and for every image that it reads, so that whoever started it
can tell how far it is.
"""

import os
import sys
from pathlib import Path

import noise
import numpy as np
from PIL import Image

from asif_jax import store
from asif_jax.data import Example, ImageSet
from asif_jax.jobs.embedding import into_store
from asif_jax.store import EncoderRecord, Header

# Small parts and batches, so that a kill has many places to hit.
PART, BATCH = 16, 8


def image_set(size):
    """Images of four random pixels, one of 50 of which cannot be read."""

    def read(index):
        os.write(1, b".")
        if index % 50 == 7:
            raise ValueError("not an image")
        pixels = np.random.default_rng(index).integers(0, 256, size=[2, 2, 3], dtype=np.uint8)
        captions = tuple(f"image Nº {index}, caption {i}" for i in range(1 + index % 2))
        return Example(Image.fromarray(pixels), captions=captions)

    return ImageSet("nowhere", f"{size} images", size, read, lambda index: Path(f"{index:06}.png"))


def main(where, size):
    os.write(1, b".")
    encoders = noise.encoders()
    if not store.is_store(where):
        records = {m: EncoderRecord(e.name, e.identity) for m, e in encoders.items()}
        dimensions = {m: e.dimension for m, e in encoders.items()}
        store.create(where, Header(records, dimensions, chunk=PART, several=("text",)))
    opened = store.open_store(where)
    into_store.embed_into(opened, image_set(size), encoders, batch=BATCH, part=PART, progress=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
