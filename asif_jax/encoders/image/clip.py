"""CLIP's vision tower.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021:
a vision transformer with one more layer norm before the blocks, and a projection at the end.
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
from asif_jax.encoders.layers.patches import Patches, patch_count, resize_positions
from asif_jax.encoders.layers.pre_norm import CLIP_BLOCK_NAMES, PreNormConfig, blocks, layer_norm
from asif_jax.encoders.weights.config import read_json, sizes
from asif_jax.encoders.weights.published import published_name, read_tensors, with_weights

_UNUSED = ("text_model.*", "text_projection.weight", "logit_scale", "embeddings.position_ids")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig(PreNormConfig):
    """The sizes of a vision tower, by the names of its config.json."""

    projection_dim: int = 512
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    image_size: int = 224
    patch_size: int = 32


class CLIPVision(nnx.Module):
    """Images to the space they share with texts."""

    def __init__(
        self,
        config: CLIPVisionConfig,
        *,
        projected: bool = True,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        width, epsilon = config.hidden_size, config.layer_norm_eps
        count = patch_count(config.image_size, config.patch_size) + 1
        self.patches = Patches(config.patch_size, width, bias=False, dtype=dtype, rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros([width], dtype))
        self.positions = nnx.Param(jnp.zeros([count, width], dtype))
        self.first_norm = layer_norm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.blocks = blocks(config, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(width, epsilon=epsilon, dtype=jnp.float32, rngs=rngs)
        self.dimension = config.projection_dim if projected else width
        options = {"dtype": jnp.float32, "param_dtype": dtype, "use_bias": False}
        self.projection = (
            nnx.Linear(width, self.dimension, **options, rngs=rngs) if projected else None
        )

    def __call__(self, images: Array) -> Array:
        """Embeds images of any resolution; positions are interpolated.

        Args:
          images: [batch, height, width, 3] normalized.

        Returns:
          [batch, projection_dim] float32, not of unit length; or, without projection, [batch,
          hidden_size].
        """
        tokens = self.patches(images)
        positions = self.positions.get_value()
        grid = resize_positions(positions[1:], tokens.shape[1:3])
        tokens = (tokens + grid).reshape(len(images), -1, tokens.shape[-1])
        first = self.class_token.get_value() + positions[0]
        first = jnp.broadcast_to(first, (len(images), 1, *first.shape))
        tokens = self.first_norm(jnp.concatenate([first, tokens], axis=1))
        for block in self.blocks:
            tokens = block(tokens)
        image = self.norm(tokens[:, 0])
        return image if self.projection is None else self.projection(image)


_CHECKPOINT_NAMES: Mapping[str, str] = {
    **CLIP_BLOCK_NAMES,
    "class_token": "embeddings.class_embedding",
    "positions": "embeddings.position_embedding.weight",
    "patches": "embeddings.patch_embedding",
    "first_norm": "pre_layrnorm",
    "norm": "post_layernorm",
    "projection": "visual_projection",
}


def load_clip_vision(directory: Path, *, dtype: DTypeLike = jnp.float32) -> CLIPVision:
    """Loads the vision tower of a CLIP.

    Args:
      directory: with config.json and the weights, of both towers or of this one.
      dtype: the type of parameters and products, float32 or bfloat16.

    Returns:
      The module with its weights, with the projection if the checkpoint has it.

    Raises:
      ValueError: a file or tensor is missing, damaged, unexpected or misshaped.
    """
    settings = read_json(directory / "config.json")
    if settings.get("model_type") == "clip":
        shared = {k: settings[k] for k in ("projection_dim",) if k in settings}
        settings = {**settings.get("vision_config", {}), **shared}
    config = sizes(CLIPVisionConfig, settings)
    tensors = read_tensors(directory).without_prefix("vision_model.")
    projected = "visual_projection.weight" in tensors
    return with_weights(
        lambda rngs: CLIPVision(config, projected=projected, dtype=dtype, rngs=rngs),
        tensors,
        functools.partial(published_name, names=_CHECKPOINT_NAMES, layer="encoder.layers"),
        source=directory,
        unused=_UNUSED,
    )


ARCHITECTURE = ImageArchitecture(load_clip_vision, processor="clip")
