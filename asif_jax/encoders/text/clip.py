"""The text tower of CLIP.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
section 2.4: a causal transformer, whose last token stands for the sentence.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from asif_jax.encoders.layers.pooling import Dense, Head
from asif_jax.encoders.layers.pre_norm import CLIP_BLOCK_NAMES, PreNormConfig, blocks, layer_norm
from asif_jax.encoders.text.architecture import TextArchitecture
from asif_jax.encoders.weights.published import published_name

# What published checkpoints hold beyond the text tower.
_UNUSED = ("vision_model.*", "visual_projection.*", "logit_scale", "embeddings.position_ids")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(PreNormConfig):
    """The sizes of a text tower, by the names of config.json, which leaves out usual ones."""

    vocab_size: int = 49408
    hidden_size: int = 512
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    max_position_embeddings: int = 77
    layer_norm_eps: float = 1e-5
    hidden_act: str = "quick_gelu"

    @property
    def longest(self) -> int:
        """The longest sentence, in tokens."""
        return self.max_position_embeddings


class CLIPText(nnx.Module):
    """Token ids to a vector for each token, which knows those before it."""

    def __init__(self, config: CLIPTextConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        width, epsilon = config.hidden_size, config.layer_norm_eps
        embed = functools.partial(nnx.Embed, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.words = embed(config.vocab_size, width)
        self.positions = embed(config.max_position_embeddings, width)
        self.blocks = blocks(config, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, ids: Array, mask: Array) -> Array:
        """Reads sentences.

        Args:
          ids: [batch, length] int32 token ids.
          mask: [batch, length] bool, false at the end of padded sentences. Their other tokens do
            not see it, being before it.

        Returns:
          [batch, length, hidden_size], of the parameters' type.
        """
        length = ids.shape[-1]
        tokens = self.words(ids) + self.positions(jnp.arange(length))
        visible = self.visible(length)
        for block in self.blocks:
            tokens = block(tokens, visible)
        return self.norm(tokens)

    def visible(self, length: int) -> Array:
        """Which tokens each token sees: itself and those before it.

        Args:
          length: the length of the sentences, in tokens.

        Returns:
          [length, length] bool, by seeing and by seen token.
        """
        return jnp.tri(length, dtype=bool)


_CHECKPOINT_MODULES: Mapping[str, str] = {
    **CLIP_BLOCK_NAMES,
    "words": "embeddings.token_embedding",
    "positions": "embeddings.position_embedding",
    "norm": "final_layer_norm",
}


def checkpoint_name(path: tuple[Any, ...]) -> str:
    """Name of a parameter in the published checkpoint, less its "text_model.".

    Args:
      path: its path in `CLIPText`.

    Returns:
      The tensor's name.

    Example:
      >>> checkpoint_name(("blocks", 3, "feed_forward", "up", "kernel"))
      'encoder.layers.3.mlp.fc1.weight'
    """
    return published_name(path, _CHECKPOINT_MODULES, layer="encoder.layers")


def _head(config: Mapping[str, Any], sizes: CLIPTextConfig) -> Head:
    """The projection of the last token into the space shared with images."""
    outputs = config.get("projection_dim", 512)
    projection = Dense(sizes.hidden_size, outputs, "text_projection", bias=False)
    return Head(("lasttoken",), (projection,))


ARCHITECTURE = TextArchitecture(
    CLIPTextConfig, CLIPText, checkpoint_name, prefix="text_model.", unused=_UNUSED, head=_head
)
