"""MPNet, the architecture of all-mpnet-base-v2.

Song et al., "MPNet: Masked and Permuted Pre-training for Language Understanding", NeurIPS 2020. Its
relative positions are those of T5 (Raffel et al., JMLR 2020, section 2.1), shared by all layers.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from asif_jax.encoders.layers.post_norm import PostNormBlock, PostNormConfig
from asif_jax.encoders.layers.pre_norm import layer_norm
from asif_jax.encoders.text.architecture import TextArchitecture
from asif_jax.encoders.text.roberta import positions_after_padding
from asif_jax.encoders.weights.published import published_name

# What published checkpoints hold beyond the transformer.
_UNUSED = ("pooler.*", "lm_head.*", "classifier.*", "qa_outputs.*", "embeddings.position_ids")

_PADDING = 1
_FARTHEST = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class MPNetConfig(PostNormConfig):
    """The sizes of an MPNet, by the names of its config.json."""

    relative_attention_num_buckets: int = 32

    @property
    def longest(self) -> int:
        """The longest sentence, in tokens."""
        return self.max_position_embeddings - _PADDING - 1


class MPNet(nnx.Module):
    """Token ids to a vector for each token."""

    def __init__(self, config: MPNetConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        width, buckets = config.hidden_size, config.relative_attention_num_buckets
        embed = functools.partial(nnx.Embed, dtype=dtype, param_dtype=dtype, rngs=rngs)
        self.words = embed(config.vocab_size, width)
        self.positions = embed(config.max_position_embeddings, width)
        self.norm = layer_norm(width, epsilon=config.layer_norm_eps, dtype=dtype, rngs=rngs)
        self.relative = nnx.Embed(buckets, config.num_attention_heads, rngs=rngs)
        self.blocks = nnx.List(
            [PostNormBlock(config, dtype=dtype, rngs=rngs) for _ in range(config.num_hidden_layers)]
        )

    def __call__(self, ids: Array, mask: Array) -> Array:
        """Reads sentences.

        Args:
          ids: [batch, length] int32 token ids, 1 where a sentence is padded.
          mask: [batch, length] bool, false where a sentence is padded.

        Returns:
          [batch, length, hidden_size], of the parameters' type.
        """
        positions = self.positions(positions_after_padding(ids, _PADDING))
        tokens = self.norm(self.words(ids) + positions)
        bias = self.position_bias(ids.shape[-1])
        for block in self.blocks:
            tokens = block(tokens, mask, bias)
        return tokens

    def position_bias(self, length: int) -> Array:
        """What each head adds to its logits, by how far apart two tokens are.

        Args:
          length: the length of the sentences, in tokens.

        Returns:
          [heads, length, length] float32, by querying and by queried token.
        """
        places = jnp.arange(length)
        distances = places[None, :] - places[:, None]
        buckets = relative_bucket(distances, self.relative.num_embeddings)
        return self.relative(buckets).transpose(2, 0, 1)


def relative_bucket(distances: ArrayLike, buckets: int) -> Array:
    """Sorts relative positions into buckets, near ones exactly and far ones by their logarithm.

    Args:
      distances: int, positive to the right.
      buckets: their number; half of them for each direction.

    Returns:
      The same shape, int32.

    Example:
      >>> relative_bucket(jnp.array([0, -1, 1, -9, -127, -1000]), 32).tolist()
      [0, 1, 17, 8, 15, 15]
    """
    distances = jnp.asarray(distances)
    half = buckets // 2
    exact = half // 2
    # Where each further bucket begins; a little less, for some of the bounds are whole numbers.
    steps = np.arange(1, half - exact) / (half - exact)
    bounds = exact * (_FARTHEST / exact) ** steps - 1e-3
    far = jnp.abs(distances)
    logarithmic = exact + jnp.sum(far[..., None] >= bounds, axis=-1)
    return jnp.where(far < exact, far, logarithmic) + half * (distances > 0)


_CHECKPOINT_MODULES: Mapping[str, str] = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "norm": "embeddings.LayerNorm",
    "relative": "encoder.relative_attention_bias",
    "query": "attention.attn.q",
    "key": "attention.attn.k",
    "value": "attention.attn.v",
    "attended": "attention.attn.o",
    "attention_norm": "attention.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def checkpoint_name(path: tuple[Any, ...]) -> str:
    """Name of a parameter in the published checkpoint.

    Args:
      path: its path in `MPNet`.

    Returns:
      The tensor's name.

    Example:
      >>> checkpoint_name(("blocks", 3, "attention", "query", "kernel"))
      'encoder.layer.3.attention.attn.q.weight'
    """
    return published_name(path, _CHECKPOINT_MODULES, layer="encoder.layer")


ARCHITECTURE = TextArchitecture(
    MPNetConfig, MPNet, checkpoint_name, prefix="mpnet.", unused=_UNUSED
)
