"""The vision transformer, which is also the architecture of DeiT and DINO.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. Touvron et al., "Training
data-efficient image transformers & distillation through attention", ICML 2021: DeiT, with one more
token. Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021: DINO.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from asif_jax.encoders.image.architecture import ImageArchitecture
from asif_jax.encoders.layers.patches import (
    PATCH_POOLINGS,
    Patches,
    patch_count,
    pool_patches,
    resize_positions,
)
from asif_jax.encoders.layers.pre_norm import PreNormConfig, blocks, layer_norm
from asif_jax.encoders.weights.config import read_json, sizes
from asif_jax.encoders.weights.published import published_name, read_tensors, with_weights

# What published checkpoints hold beyond the transformer.
_UNUSED = (
    "pooler.*",
    "classifier.*",
    "cls_classifier.*",
    "distillation_classifier.*",
    "decoder.*",
    "embeddings.mask_token",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(PreNormConfig):
    """The sizes of a vision transformer, by the names of its config.json."""

    layer_norm_eps: float = 1e-12
    image_size: int = 224
    patch_size: int = 16
    qkv_bias: bool = True


class ViT(nnx.Module):
    """Images to the class token, or to the mean of the patches' tokens."""

    def __init__(
        self,
        config: ViTConfig,
        *,
        distilled: bool = False,
        pooling: str = "cls",
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        width = config.hidden_size
        self.pooling, self.dimension = pooling, width
        count = patch_count(config.image_size, config.patch_size) + 1 + distilled
        self.patches = Patches(config.patch_size, width, dtype=dtype, rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros([1, 1, width], dtype))
        self.distillation_token = nnx.Param(jnp.zeros([1, 1, width], dtype)) if distilled else None
        self.positions = nnx.Param(jnp.zeros([1, count, width], dtype))
        self.blocks = blocks(config, bias=config.qkv_bias, dtype=dtype, rngs=rngs)
        epsilon = config.layer_norm_eps
        self.norm = layer_norm(width, epsilon=epsilon, dtype=jnp.float32, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Embeds images of any resolution; positions are interpolated.

        Args:
          images: [batch, height, width, 3] normalized.

        Returns:
          [batch, hidden_size] float32, not of unit length.
        """
        tokens = self.patches(images)
        first = [
            token.get_value()
            for token in (self.class_token, self.distillation_token)
            if token is not None
        ]
        positions = self.positions.get_value()[0]
        grid = resize_positions(positions[len(first) :], tokens.shape[1:3])
        tokens = (tokens + grid).reshape(len(images), -1, tokens.shape[-1])
        first = jnp.concatenate(first, axis=1) + positions[: len(first)]
        first = jnp.broadcast_to(first, (len(images), *first.shape[1:]))
        tokens = jnp.concatenate([first, tokens], axis=1)
        for block in self.blocks:
            tokens = block(tokens)
        return pool_patches(self.norm(tokens), self.pooling, others=first.shape[1])


_CHECKPOINT_NAMES: Mapping[str, str] = {
    "class_token": "embeddings.cls_token",
    "distillation_token": "embeddings.distillation_token",
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection",
    "attention_norm": "layernorm_before",
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "attended": "attention.output.dense",
    "feed_forward_norm": "layernorm_after",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "layernorm",
}


def load_vit(directory: Path, *, pooling: str = "cls", dtype: DTypeLike = jnp.float32) -> ViT:
    """Loads a ViT, DeiT or DINO.

    Args:
      directory: with config.json and the weights.
      pooling: "cls" or "mean".
      dtype: the type of parameters and products, float32 or bfloat16.

    Returns:
      The module with its weights.

    Raises:
      ValueError: a file or tensor is missing, damaged, unexpected or misshaped.
    """
    config = sizes(ViTConfig, read_json(directory / "config.json"))
    tensors = read_tensors(directory).without_prefix("vit.").without_prefix("deit.")
    distilled = _CHECKPOINT_NAMES["distillation_token"] in tensors
    options = {"distilled": distilled, "pooling": pooling, "dtype": dtype}
    return with_weights(
        lambda rngs: ViT(config, **options, rngs=rngs),
        tensors,
        functools.partial(published_name, names=_CHECKPOINT_NAMES, layer="encoder.layer"),
        source=directory,
        unused=_UNUSED,
    )


ARCHITECTURE = ImageArchitecture(load_vit, processor="vit", poolings=PATCH_POOLINGS)
DEIT_ARCHITECTURE = ImageArchitecture(load_vit, processor="deit", poolings=PATCH_POOLINGS)
