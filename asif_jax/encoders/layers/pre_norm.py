"""The transformer block of vision transformers and CLIP: normalize first, then add.

Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020, figure 1 (b).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from asif_jax.encoders.layers.attention import attention, gelu, quick_gelu

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "quick_gelu": quick_gelu,
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
}


def layer_norm(width: int, *, epsilon: float, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A layer norm that computes in float32 and returns `dtype`.

    Args:
      width: the width of the tokens.
      epsilon: added to the variance.
      dtype: the type of the result.
      rngs: Flax's streams of random numbers.

    Returns:
      The module.
    """
    return nnx.LayerNorm(width, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs)


class SelfAttention(nnx.Module):
    """Multi-head attention of tokens to one another."""

    def __init__(
        self, width: int, heads: int, *, bias: bool = True, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        linear = functools.partial(nnx.Linear, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.heads = heads
        self.query = linear(width, width, use_bias=bias)
        self.key = linear(width, width, use_bias=bias)
        self.value = linear(width, width, use_bias=bias)
        self.attended = linear(width, width)

    def __call__(
        self, tokens: Array, mask: Array | None = None, position_bias: Array | None = None
    ) -> Array:
        query, key, value = (
            linear(tokens).reshape(*tokens.shape[:-1], self.heads, -1)
            for linear in (self.query, self.key, self.value)
        )
        attended = attention(query, key, value, mask=mask, bias=position_bias)
        return self.attended(attended.reshape(tokens.shape))


class FeedForward(nnx.Module):
    """Two linear maps with an activation between them, for each token by itself."""

    def __init__(
        self, width: int, hidden: int, *, activation: str, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        linear = functools.partial(nnx.Linear, dtype=dtype, param_dtype=dtype, rngs=rngs)
        if activation not in ACTIVATIONS:
            supported = ", ".join(ACTIVATIONS)
            raise ValueError(f"unsupported activation {activation!r}, not among {supported}")
        self.activation = ACTIVATIONS[activation]
        self.up = linear(width, hidden)
        self.down = linear(hidden, width)

    def __call__(self, tokens: Array) -> Array:
        return self.down(self.activation(self.up(tokens)))


class Block(nnx.Module):
    """Attention and a feed-forward network, each added to what came in."""

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: Callable[[Array], Array],
        *,
        epsilon: float,
        bias: bool = True,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        norm = functools.partial(layer_norm, width, epsilon=epsilon, dtype=dtype, rngs=rngs)
        self.attention_norm = norm()
        self.attention = SelfAttention(width, heads, bias=bias, dtype=dtype, rngs=rngs)
        self.feed_forward_norm = norm()
        self.feed_forward = feed_forward

    def __call__(self, tokens: Array, mask: Array | None = None) -> Array:
        """Transforms tokens.

        Args:
          tokens: [batch, length, width].
          mask: bool, broadcastable to [batch, heads, length, length]; false where a token may not
            look.

        Returns:
          The same shape and type.
        """
        tokens = tokens + self.attention(self.attention_norm(tokens), mask)
        return tokens + self.feed_forward(self.feed_forward_norm(tokens))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreNormConfig:
    """The sizes of a stack of blocks, by the names of config.json."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6


def feed_forward(config: PreNormConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> FeedForward:
    """The feed-forward network of a block.

    Args:
      config: its sizes.
      dtype: the type of parameters and products.
      rngs: Flax's streams of random numbers.

    Returns:
      The module.
    """
    width, hidden = config.hidden_size, config.intermediate_size
    return FeedForward(width, hidden, activation=config.hidden_act, dtype=dtype, rngs=rngs)


def blocks(
    config: PreNormConfig, *, bias: bool = True, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.List:
    """A stack of blocks.

    Args:
      config: their sizes and number.
      bias: whether queries, keys and values have one.
      dtype: the type of parameters and products.
      rngs: Flax's streams of random numbers.

    Returns:
      The blocks.
    """
    options = {"bias": bias, "dtype": dtype, "rngs": rngs, "epsilon": config.layer_norm_eps}
    width, heads = config.hidden_size, config.num_attention_heads
    return nnx.List(
        [
            Block(width, heads, feed_forward(config, dtype=dtype, rngs=rngs), **options)
            for _ in range(config.num_hidden_layers)
        ]
    )


# What CLIP and SigLIP call the parts of a block in their checkpoints.
CLIP_BLOCK_NAMES: Mapping[str, str] = {
    "attention_norm": "layer_norm1",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attended": "self_attn.out_proj",
    "feed_forward_norm": "layer_norm2",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
