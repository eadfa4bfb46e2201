"""The transformer block of BERT and its kin: add first, then normalize.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.1.
"""

import dataclasses

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from asif_jax.encoders.layers.pre_norm import FeedForward, SelfAttention, layer_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class PostNormConfig:
    """The sizes of a BERT or its kin, by the names of config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float
    hidden_act: str = "gelu"


class PostNormBlock(nnx.Module):
    """Attention and a feed-forward network, each added to what came in, and then normalized."""

    def __init__(self, config: PostNormConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        width, epsilon = config.hidden_size, config.layer_norm_eps
        self.attention = SelfAttention(width, config.num_attention_heads, dtype=dtype, rngs=rngs)
        self.attention_norm = layer_norm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.feed_forward = FeedForward(
            width, config.intermediate_size, activation=config.hidden_act, dtype=dtype, rngs=rngs
        )
        self.feed_forward_norm = layer_norm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: Array, mask: Array, position_bias: Array | None = None) -> Array:
        """Transforms tokens.

        Args:
          tokens: [batch, length, width].
          mask: [batch, length] bool, false where a sentence is padded.
          position_bias: [heads, length, length] float32, added to the logits of the attention.

        Returns:
          The same shape and type.
        """
        attended = self.attention(tokens, mask[:, None, None, :], position_bias)
        tokens = self.attention_norm(tokens + attended)
        return self.feed_forward_norm(tokens + self.feed_forward(tokens))
