"""Models without ties: encoders that scatter images and sentences, over random pairs."""

import zlib

import numpy as np
from PIL import Image

from asif_jax import methods
from asif_jax.core import anchors
from asif_jax.encoders import Encoder
from asif_jax.model import EncoderRecord
from asif_jax.model import create as create_model
from asif_jax.store import StoredPair

_PROJECTION = np.random.default_rng(0).normal(size=[12, 8]).astype(np.float32)


def image_encoder():
    """A random projection of four pixels."""

    def preprocess(images):
        small = [np.asarray(image.resize((2, 2)), np.float32).reshape(12) for image in images]
        return np.stack(small) / 128 - 1

    def apply(params, batch):
        return batch @ params

    return Encoder(apply, _PROJECTION, preprocess, "image", "noise of pixels", 8, "pixels")


def text_encoder():
    """A random vector for every sentence."""

    def preprocess(texts):
        seeds = [zlib.crc32(text.encode()) for text in texts]
        return np.stack([np.random.default_rng(s).normal(size=6) for s in seeds]).astype(np.float32)

    return Encoder(
        lambda params, batch: batch, (), preprocess, "text", "noise of words", 6, "words"
    )


def encoders():
    """Modality -> encoder, of these two."""
    return {"image": image_encoder(), "text": text_encoder()}


def model(*, pairs=40, k=10, p=3.0, images=()):
    """A model of random pairs, the first of which are said to be of the given images."""
    rng = np.random.default_rng(1)
    embeddings = {"image": rng.normal(size=[pairs, 8]), "text": rng.normal(size=[pairs, 6])}
    names = [*map(str, images), *(f"/nowhere/{index}.png" for index in range(pairs))][:pairs]
    return create_model(
        anchors.create(embeddings),
        tuple(StoredPair(name, ("",)) for name in names),
        {"image": EncoderRecord("image", "pixels"), "text": EncoderRecord("text", "words")},
        methods.paper(k=k, p=p),
    )


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size=[2, 2, 3], dtype=np.uint8)
    Image.fromarray(pixels).save(path)
