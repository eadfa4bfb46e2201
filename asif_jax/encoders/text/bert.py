"""BERT, the architecture of MiniLM, BGE, E5, GTE and many other sentence encoders.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
NAACL 2019.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from asif_jax.encoders.layers.post_norm import PostNormBlock, PostNormConfig
from asif_jax.encoders.layers.pre_norm import layer_norm
from asif_jax.encoders.text.architecture import TextArchitecture
from asif_jax.encoders.weights.published import published_name

# What published checkpoints hold beyond the transformer.
_UNUSED = ("pooler.*", "cls.*", "classifier.*", "qa_outputs.*", "embeddings.position_ids")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BERTConfig(PostNormConfig):
    """The sizes of a BERT, by the names of its config.json."""

    type_vocab_size: int

    @property
    def longest(self) -> int:
        """The longest sentence, in tokens."""
        return self.max_position_embeddings


class BERT(nnx.Module):
    """Token ids to a vector for each token."""

    def __init__(self, config: BERTConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        width = config.hidden_size
        embed = functools.partial(nnx.Embed, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.words = embed(config.vocab_size, width)
        self.positions = embed(config.max_position_embeddings, width)
        self.types = embed(config.type_vocab_size, width)
        self.norm = layer_norm(width, epsilon=config.layer_norm_eps, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            [PostNormBlock(config, dtype=dtype, rngs=rngs) for _ in range(config.num_hidden_layers)]
        )

    def position_ids(self, ids: Array) -> Array:
        """Positions of tokens: 0, 1, ... in every sentence."""
        return jnp.arange(ids.shape[-1])

    def __call__(self, ids: Array, mask: Array) -> Array:
        """Reads sentences.

        Args:
          ids: [batch, length] int32 token ids.
          mask: [batch, length] bool, false where a sentence is padded.

        Returns:
          [batch, length, hidden_size], of the parameters' type.
        """
        tokens = self.words(ids) + self.positions(self.position_ids(ids))
        tokens = self.norm(tokens + self.types(jnp.zeros_like(ids)))
        for block in self.blocks:
            tokens = block(tokens, mask)
        return tokens


_CHECKPOINT_MODULES: Mapping[str, str] = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def checkpoint_name(path: tuple[Any, ...]) -> str:
    """Name of a parameter in the published checkpoint.

    Args:
      path: its path in `BERT`.

    Returns:
      The tensor's name.

    Example:
      >>> checkpoint_name(("blocks", 3, "feed_forward", "up", "kernel"))
      'encoder.layer.3.intermediate.dense.weight'
    """
    return published_name(path, _CHECKPOINT_MODULES, layer="encoder.layer")


ARCHITECTURE = TextArchitecture(BERTConfig, BERT, checkpoint_name, prefix="bert.", unused=_UNUSED)
