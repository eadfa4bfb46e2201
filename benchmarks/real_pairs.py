"""Embedded pairs for the benchmarks: from .npz files and folders of captioned images.

python benchmarks/real_pairs.py photos/ --output photos.npz       # embed once, measure often
"""

import dataclasses
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from tyro.conf import Positional


class Embedded(NamedTuple):
    """N pairs.

    Attributes:
      images: [N, d] float32 of unit length.
      captions: [N, c, e] float32 of unit length, zero where a pair has fewer captions.
    """

    images: np.ndarray
    captions: np.ndarray

    def __getitem__(self, rows) -> "Embedded":
        return Embedded(self.images[rows], self.captions[rows])

    def mean_captions(self) -> np.ndarray:
        """[N, e] of unit length."""
        return unit(self.captions.sum(axis=1))


class Split(NamedTuple):
    """Anchors, or training pairs, and the pairs to test on."""

    train: Embedded
    test: Embedded


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to embed."""

    source: Positional[tuple[Path, ...]]
    """Folders of captioned images, or .npz files."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The .npz file to write."""


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def load(sources: tuple[Path, ...]) -> Embedded:
    """All pairs of .npz files (`image` [N, d], `caption` [N, c, e]) and folders, in one."""
    parts = [_from_file(path) if path.suffix == ".npz" else _from_folder(path) for path in sources]
    most = max(part.captions.shape[1] for part in parts)
    widened = [
        np.pad(part.captions, ((0, 0), (0, most - part.captions.shape[1]), (0, 0)))
        for part in parts
    ]
    return Embedded(np.concatenate([part.images for part in parts]), np.concatenate(widened))


def split(pairs: Embedded, *, train: int, test: int, seed: int) -> Split:
    """Random pairs; the test pairs of one seed are not those of another, as far as they go round.

    With as many seeds as the test pairs fit into all pairs this is cross-validation.
    """
    count = len(pairs.images)
    if train + test > count:
        raise ValueError(f"{train} pairs and {test} to test on are more than the {count} there are")
    order = np.random.default_rng(0).permutation(count)
    order = np.roll(order, -(seed % (count // test)) * test)
    rest = np.random.default_rng(seed + 1).permutation(order[test:])
    return Split(pairs[rest[:train]], pairs[order[:test]])


def _from_file(path: Path) -> Embedded:
    with np.load(path) as arrays:
        captions = arrays["caption"]
        captions = captions if captions.ndim == 3 else captions[:, None]
        return Embedded(unit(arrays["image"]), unit(captions))


def _from_folder(path: Path) -> Embedded:
    from asif_jax import data, encoders
    from asif_jax.jobs.embedding.memory import embed_pairs

    names = {"image": "efficientnet-lite2", "text": "all-MiniLM-L6-v2"}
    loaded = {modality: encoders.load(name) for modality, name in names.items()}
    found = embed_pairs(data.read_folder(path).pairs, loaded)
    return Embedded(unit(found.images), unit(found.captions_by_pair()))


def main(settings: Settings) -> None:
    pairs = load(settings.source)
    np.savez(settings.output, image=pairs.images, caption=pairs.captions)
    print(f"{settings.output}: {pairs.images.shape} images, {pairs.captions.shape} captions")


if __name__ == "__main__":
    main(tyro.cli(Settings))
