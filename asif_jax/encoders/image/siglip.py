"""SigLIP's vision tower.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023: a vision transformer without
class token, whose patches a learned query pools by attention (Zhai et al., "Scaling Vision
Transformers", CVPR 2022, section 3.2).
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from asif_jax.encoders.image.architecture import ImageArchitecture
from asif_jax.encoders.layers.attention import attention
from asif_jax.encoders.layers.patches import Patches, patch_count, resize_positions
from asif_jax.encoders.layers.pre_norm import (
    CLIP_BLOCK_NAMES,
    PreNormConfig,
    blocks,
    feed_forward,
    layer_norm,
)
from asif_jax.encoders.weights.config import read_json, sizes
from asif_jax.encoders.weights.published import published_name, read_tensors, with_weights
from asif_jax.encoders.weights.tensors import Tensors

_UNUSED = ("text_model.*", "logit_scale", "logit_bias", "embeddings.position_ids", "classifier.*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigLIPVisionConfig(PreNormConfig):
    """The sizes of a vision tower, by the names of its config.json."""

    hidden_act: str = "gelu_pytorch_tanh"
    image_size: int = 224
    patch_size: int = 16


class AttentionPooling(nnx.Module):
    """One vector of many tokens: what a learned query attends to, and a feed-forward network."""

    def __init__(self, config: SigLIPVisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width, self.heads = config.hidden_size, config.num_attention_heads
        linear = functools.partial(nnx.Linear, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.probe = nnx.Param(jnp.zeros([1, 1, width], dtype))
        self.query, self.key = linear(width, width), linear(width, width)
        self.value, self.attended = linear(width, width), linear(width, width)
        self.norm = layer_norm(width, epsilon=config.layer_norm_eps, dtype=dtype, rngs=rngs)
        self.feed_forward = feed_forward(config, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        probe = self.probe.get_value()
        probe = jnp.broadcast_to(probe, (len(tokens), *probe.shape[1:]))
        query, key, value = (
            linear(x).reshape(*x.shape[:-1], self.heads, -1)
            for linear, x in ((self.query, probe), (self.key, tokens), (self.value, tokens))
        )
        pooled = self.attended(attention(query, key, value).reshape(probe.shape))
        return (pooled + self.feed_forward(self.norm(pooled)))[:, 0]


class SigLIPVision(nnx.Module):
    """Images to the space they share with texts."""

    def __init__(
        self, config: SigLIPVisionConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        width = self.dimension = config.hidden_size
        count = patch_count(config.image_size, config.patch_size)
        self.patches = Patches(config.patch_size, width, dtype=dtype, rngs=rngs)
        self.positions = nnx.Param(jnp.zeros([count, width], dtype))
        self.blocks = blocks(config, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(width, epsilon=config.layer_norm_eps, dtype=dtype, rngs=rngs)
        self.pooling = AttentionPooling(config, dtype=dtype, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        """Embeds images of any resolution; positions are interpolated.

        Args:
          images: [batch, height, width, 3] normalized.

        Returns:
          [batch, hidden_size] float32, not of unit length.
        """
        tokens = self.patches(images)
        tokens += resize_positions(self.positions.get_value(), tokens.shape[1:3])
        tokens = tokens.reshape(len(images), -1, tokens.shape[-1])
        for block in self.blocks:
            tokens = block(tokens)
        return self.pooling(self.norm(tokens)).astype(jnp.float32)


_CHECKPOINT_NAMES: Mapping[str, str] = {
    **CLIP_BLOCK_NAMES,
    "positions": "embeddings.position_embedding.weight",
    "patches": "embeddings.patch_embedding",
    "norm": "post_layernorm",
}
_POOLING_NAMES: Mapping[str, str] = {
    "probe": "head.probe",
    "query": "head.attention.query",
    "key": "head.attention.key",
    "value": "head.attention.value",
    "attended": "head.attention.out_proj",
    "norm": "head.layernorm",
    "up": "head.mlp.fc1",
    "down": "head.mlp.fc2",
}


def _checkpoint_name(path: tuple[Any, ...]) -> str:
    names = _POOLING_NAMES if path[0] == "pooling" else _CHECKPOINT_NAMES
    return published_name(path, names, layer="encoder.layers")


def split_projections(tensors: Tensors) -> Tensors:
    """Names apart the three projections that PyTorch's attention keeps in one tensor.

    Args:
      tensors: the checkpoint's tensors.

    Returns:
      The same, with head.attention.query, .key and .value for its in_proj.
    """

    def third(name: str, index: int) -> np.ndarray:
        return np.array_split(tensors[name], 3)[index]

    readers = dict(tensors.readers)
    for kind in ("weight", "bias"):
        name = f"head.attention.in_proj_{kind}"
        if readers.pop(name, None) is not None:
            for index, part in enumerate(("query", "key", "value")):
                read = functools.partial(third, name, index)
                readers[f"head.attention.{part}.{kind}"] = read
    return Tensors(readers)


def load_siglip_vision(directory: Path, *, dtype: DTypeLike = jnp.float32) -> SigLIPVision:
    """Loads the vision tower of a SigLIP.

    Args:
      directory: with config.json and the weights, of both towers or of this one.
      dtype: the type of parameters and products, float32 or bfloat16.

    Returns:
      The module with its weights.

    Raises:
      ValueError: a file or tensor is missing, damaged, unexpected or misshaped.
    """
    settings = read_json(directory / "config.json")
    config = sizes(SigLIPVisionConfig, settings.get("vision_config", settings))
    tensors = read_tensors(directory).without_prefix("vision_model.")
    return with_weights(
        lambda rngs: SigLIPVision(config, dtype=dtype, rngs=rngs),
        split_projections(tensors),
        _checkpoint_name,
        source=directory,
        unused=_UNUSED,
    )


ARCHITECTURE = ImageArchitecture(load_siglip_vision, processor="siglip")
