"""The text tower of SigLIP.

Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023. It is CLIP's, except that
every token sees all, padding too, and that all sentences are padded to one length.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from asif_jax.encoders.layers.pooling import Dense, Head
from asif_jax.encoders.text.architecture import TextArchitecture
from asif_jax.encoders.text.clip import CLIPText, CLIPTextConfig, checkpoint_name

# What published checkpoints hold beyond the text tower.
_UNUSED = ("vision_model.*", "logit_scale", "logit_bias", "embeddings.position_ids")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigLIPTextConfig(CLIPTextConfig):
    """The sizes of a text tower, by the names of config.json, which leaves out usual ones."""

    vocab_size: int = 32000
    hidden_size: int = 768
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 64
    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu_pytorch_tanh"
    # The width of the embedding; by default that of the tokens.
    projection_size: int | None = None


class SigLIPText(CLIPText):
    """Token ids to a vector for each token."""

    def visible(self, length: int) -> Array:
        """Which tokens each token sees: all."""
        return jnp.ones([length, length], bool)


def _head(config: Mapping[str, Any], sizes: SigLIPTextConfig) -> Head:
    """The linear map of the last token into the space shared with images."""
    outputs = sizes.projection_size or sizes.hidden_size
    return Head(("lasttoken",), (Dense(sizes.hidden_size, outputs, "head"),))


ARCHITECTURE = TextArchitecture(
    SigLIPTextConfig,
    SigLIPText,
    checkpoint_name,
    prefix="text_model.",
    unused=_UNUSED,
    head=_head,
    full=True,
)
