"""DINOv2: a vision transformer with layer scale, and in some variants SwiGLU and registers.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024; Darcet et
al., "Vision Transformers Need Registers", ICLR 2024; Shazeer, "GLU Variants Improve Transformer",
2020. The layer scale, frozen, is folded into the linear map before it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
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
from asif_jax.encoders.layers.pre_norm import Block, FeedForward, layer_norm
from asif_jax.encoders.weights.config import read_json, sizes
from asif_jax.encoders.weights.published import published_name, read_tensors, with_weights
from asif_jax.encoders.weights.tensors import Tensors

_UNUSED = ("embeddings.mask_token", "classifier.*", "*.layer_scale[12].lambda1")


@dataclasses.dataclass(frozen=True)
class DINOv2Config:
    """The sizes of a DINOv2, by the names of its config.json."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: int = 4
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    image_size: int = 224
    patch_size: int = 14
    qkv_bias: bool = True
    use_swiglu_ffn: bool = False
    num_register_tokens: int = 0


class SwiGLU(nnx.Module):
    """A feed-forward network whose hidden values are gated by the SiLU of others."""

    def __init__(self, width: int, hidden: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, dtype=dtype, param_dtype=dtype, rngs=rngs)
        # As in the paper, two thirds of the width, to keep the number of parameters.
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.up = linear(width, 2 * hidden)
        self.down = linear(hidden, width)

    def __call__(self, tokens: Array) -> Array:
        gate, value = jnp.split(self.up(tokens), 2, axis=-1)
        return self.down(jax.nn.silu(gate) * value)


class DINOv2(nnx.Module):
    """Images to the class token, or to the mean of the patches' tokens."""

    def __init__(
        self,
        config: DINOv2Config,
        *,
        pooling: str = "cls",
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        width = config.hidden_size
        self.pooling, self.dimension = pooling, width
        count = patch_count(config.image_size, config.patch_size) + 1
        self.patches = Patches(config.patch_size, width, dtype=dtype, rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros([1, 1, width], dtype))
        registers = (1, config.num_register_tokens, width)
        self.registers = nnx.Param(jnp.zeros(registers, dtype)) if registers[1] else None
        self.positions = nnx.Param(jnp.zeros([1, count, width], dtype))
        self.blocks = nnx.List(
            [_block(config, dtype, rngs) for _ in range(config.num_hidden_layers)]
        )
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
        positions = self.positions.get_value()[0]
        # The variant with registers filters positions where the grid shrinks, the other does not.
        antialias = self.registers is not None
        grid = resize_positions(positions[1:], tokens.shape[1:3], antialias=antialias)
        tokens = (tokens + grid).reshape(len(images), -1, tokens.shape[-1])
        first = [self.class_token.get_value() + positions[:1]]
        first += [] if self.registers is None else [self.registers.get_value()]
        first = [jnp.broadcast_to(each, (len(images), *each.shape[1:])) for each in first]
        others = sum(each.shape[1] for each in first)
        tokens = jnp.concatenate([*first, tokens], axis=1)
        for block in self.blocks:
            tokens = block(tokens)
        return pool_patches(self.norm(tokens), self.pooling, others=others)


def _block(config: DINOv2Config, dtype: DTypeLike, rngs: nnx.Rngs) -> Block:
    width, hidden = config.hidden_size, config.hidden_size * config.mlp_ratio
    if config.use_swiglu_ffn:
        feed_forward = SwiGLU(width, hidden, dtype=dtype, rngs=rngs)
    else:
        activation = config.hidden_act
        feed_forward = FeedForward(width, hidden, activation=activation, dtype=dtype, rngs=rngs)
    return Block(
        width,
        config.num_attention_heads,
        feed_forward,
        epsilon=config.layer_norm_eps,
        bias=config.qkv_bias,
        dtype=dtype,
        rngs=rngs,
    )


_CHECKPOINT_NAMES: Mapping[str, str] = {
    "class_token": "embeddings.cls_token",
    "registers": "embeddings.register_tokens",
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection",
    "attention_norm": "norm1",
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "attended": "attention.output.dense",
    "feed_forward_norm": "norm2",
    "norm": "layernorm",
}
_FEED_FORWARD = {"up": "mlp.fc1", "down": "mlp.fc2"}
_SWIGLU = {"up": "mlp.weights_in", "down": "mlp.weights_out"}
# The linear maps that a layer scale follows.
_SCALED = {"attention.output.dense": 1, "mlp.fc2": 2, "mlp.weights_out": 2}


def fold_layer_scale(tensors: Tensors) -> Tensors:
    """Multiplies every layer scale into the linear map before it.

    Args:
      tensors: the checkpoint's tensors.

    Returns:
      The same, those maps scaled when they are read.

    Raises:
      ValueError: then, if a layer scale has another shape; names it.
    """

    def folded(name: str, read: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        for module, index in _SCALED.items():
            layer, found, _ = name.partition(f".{module}.")
            scale = f"{layer}.layer_scale{index}.lambda1"
            if found and scale in tensors:
                return lambda: _scaled(read(), tensors[scale], scale)
        return read

    return Tensors({name: folded(name, read) for name, read in tensors.readers.items()})


def _scaled(array: np.ndarray, scale: np.ndarray, name: str) -> np.ndarray:
    """[out, ...] times [out]."""
    if scale.shape != array.shape[:1]:
        raise ValueError(f"tensor {name} has shape {scale.shape}, should be {array.shape[:1]}")
    return (array.T * scale).T


def load_dinov2(directory: Path, *, pooling: str = "cls", dtype: DTypeLike = jnp.float32) -> DINOv2:
    """Loads a DINOv2, with or without registers.

    Args:
      directory: with config.json and the weights.
      pooling: "cls" or "mean".
      dtype: the type of parameters and products, float32 or bfloat16.

    Returns:
      The module with its weights.

    Raises:
      ValueError: a file or tensor is missing, damaged, unexpected or misshaped.
    """
    settings = read_json(directory / "config.json")
    if settings.get("model_type") == "dinov2_with_registers":
        settings.setdefault("num_register_tokens", 4)
        settings.setdefault("patch_size", 16)
    config = sizes(DINOv2Config, settings)
    tensors = read_tensors(directory)
    for prefix in ("dinov2.", "dinov2_with_registers."):
        tensors = tensors.without_prefix(prefix)
    names = {**_CHECKPOINT_NAMES, **(_SWIGLU if config.use_swiglu_ffn else _FEED_FORWARD)}
    return with_weights(
        lambda rngs: DINOv2(config, pooling=pooling, dtype=dtype, rngs=rngs),
        fold_layer_scale(tensors),
        functools.partial(published_name, names=names, layer="encoder.layer"),
        source=directory,
        unused=_UNUSED,
    )


ARCHITECTURE = ImageArchitecture(load_dinov2, processor="bit", poolings=PATCH_POOLINGS)
