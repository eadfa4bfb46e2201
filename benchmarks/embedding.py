"""What the batch job costs beyond the encoders: reading, decoding, preparing, committing.

    python benchmarks/embedding.py photos/ --image-encoder efficientnet-lite2

The encoders alone get the pixels and tokens of the same images and captions from memory.
"""

import dataclasses
import functools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from measure import machine, print_table
from tyro.conf import Positional

from asif_jax import data, encoders, store
from asif_jax.data import ImageSet
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding import into_store
from asif_jax.jobs.embedding.encoding import batched, encode


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to embed."""

    source: Positional[str]
    """A folder of captioned images, tar files, Parquet files."""
    images: int = 512
    """How many of them."""
    image_encoder: tuple[str, ...] = ("efficientnet-lite0", "efficientnet-lite2")
    """Image encoders, by name or path; a row each."""
    text_encoder: str = "all-MiniLM-L6-v2"
    """Text encoder, by name or path."""
    batch: int = 32
    """Images, and captions, to a batch."""
    repeats: int = 3
    """Runs, of which the median is printed."""


def alone(images: ImageSet, image: Encoder, text: Encoder, batch: int) -> Callable[[], None]:
    """The encoders over everything, prepared beforehand."""
    examples = [images.read(index) for index in range(images.size)]
    pixels = [image.preprocess([example.image]) for example in examples]
    image_batches = [
        (np.concatenate(rows + rows[-1:] * (batch - len(rows))), len(rows))
        for rows in batched(pixels, batch)
    ]
    captions = sorted((c for example in examples for c in example.captions), key=len)
    text_batches = [
        (text.preprocess(rows + [""] * (batch - len(rows))), len(rows))
        for rows in batched(captions, batch)
    ]

    def run() -> None:
        encode(image, image_batches)
        encode(text, text_batches)

    return run


def job(images: ImageSet, image: Encoder, text: Encoder, batch: int) -> float:
    """The job into a new store; the share of its time that it waited for images."""
    directory = Path(tempfile.mkdtemp())
    both = {"image": image, "text": text}
    records = {m: store.EncoderRecord(e.name, e.identity) for m, e in both.items()}
    dimensions = {m: e.dimension for m, e in both.items()}
    opened = store.create(
        directory / "store", store.Header(records, dimensions, "bfloat16", several=("text",))
    )
    try:
        done = into_store.embed_into(opened, images, both, batch=batch, progress=False)
    finally:
        shutil.rmtree(directory)
    return done.waited / done.seconds


def measure(settings: Settings, images: ImageSet, name: str, text: Encoder) -> list[object]:
    """One row of the table."""
    image = encoders.load(name, modality="image")
    run_alone = alone(images, image, text, settings.batch)
    seconds: dict[str, list[float]] = {"alone": [], "job": []}
    waited = []
    for _ in range(settings.repeats + 1):
        for kind, run in (
            ("alone", run_alone),
            ("job", functools.partial(job, images, image, text, settings.batch)),
        ):
            start = time.perf_counter()
            result = run()
            seconds[kind].append(time.perf_counter() - start)
            waited += [result] if kind == "job" else []
    # The first of each compiles.
    own, whole = (images.size / statistics.median(s[1:]) for s in seconds.values())
    return [image.name, own, whole, f"{whole / own:.2f}", f"{statistics.median(waited[1:]):.1%}"]


def main(settings: Settings) -> None:
    images = data.read_set(settings.source)
    images = dataclasses.replace(images, size=min(settings.images, images.size))
    print(f"{machine()}; {settings}", flush=True)
    text = encoders.load(settings.text_encoder, modality="text")
    header = ["images/s", "encoders alone", "job", "ratio", "waited for images"]
    print_table(header, [measure(settings, images, name, text) for name in settings.image_encoder])


if __name__ == "__main__":
    main(tyro.cli(Settings))
