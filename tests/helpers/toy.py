"""Encoders small enough to compute by hand, and pairs for them."""

import jax.numpy as jnp
import numpy as np
from PIL import Image

from asif_jax import methods
from asif_jax.core import anchors
from asif_jax.data import Pair
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.memory import embed_pairs
from asif_jax.model import EncoderRecord
from asif_jax.model import create as create_model
from asif_jax.store import StoredPair

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
COLORS |= {"yellow": (255, 255, 0), "purple": (160, 0, 160), "grey": (90, 90, 90)}


def image_encoder(scale=1.0):
    """Mean color of the image."""

    def preprocess(images):
        return np.stack([np.asarray(image.resize((2, 2)), np.float32) for image in images])

    def apply(params, batch):
        return params * jnp.mean(batch, axis=(1, 2))

    return Encoder(apply, jnp.float32(scale), preprocess, "image", "toy colors", 3, f"toy {scale}")


def text_encoder():
    """Which colors a sentence names."""

    def preprocess(texts):
        named = [[color in text for color in COLORS] for text in texts]
        return np.asarray(named, np.float32).reshape(len(texts), len(COLORS))

    def apply(params, batch):
        return batch @ params

    params = jnp.asarray(list(COLORS.values()), jnp.float32)
    return Encoder(apply, params, preprocess, "text", "toy words", 3, "toy words")


def encoders(scale=1.0):
    """Modality -> encoder, of these two."""
    return {"image": image_encoder(scale), "text": text_encoder()}


def write_pairs(directory, count, *, captions=1):
    """Images of one color each, with captions that name it; groups "warm" and "cold"."""
    rng = np.random.default_rng(count)
    pairs = []
    for index in range(count):
        name = list(COLORS)[index % len(COLORS)]
        group = "warm" if name in ("red", "yellow") else "cold"
        path = directory / group / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 30, size=3)
        color = tuple(int(abs(c - n)) for c, n in zip(COLORS[name], noise, strict=True))
        Image.new("RGB", (5, 4), color).save(path)
        texts = tuple(f"{name} thing {index} {caption}" for caption in range(captions))
        path.with_suffix(".txt").write_text(texts[0])
        pairs.append(Pair(path, texts, group))
    return tuple(pairs)


def model(pairs, *, k, p):
    """A model of pairs, as these encoders see them."""
    embedded = embed_pairs(pairs, encoders(), progress=False)
    return create_model(
        anchors.create(embedded.by_modality()),
        tuple(StoredPair(str(pair.image.resolve()), pair.captions) for pair in embedded.pairs),
        {m: EncoderRecord(encoder.name, encoder.identity) for m, encoder in encoders().items()},
        methods.paper(k=k, p=p),
    )
