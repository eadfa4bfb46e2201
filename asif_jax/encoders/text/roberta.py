"""RoBERTa and XLM-RoBERTa, the latter the architecture of most multilingual sentence encoders.

Liu et al., "RoBERTa: A Robustly Optimized BERT Pretraining Approach", 2019; Conneau et al.,
"Unsupervised Cross-lingual Representation Learning at Scale", ACL 2020. The network is BERT's.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from asif_jax.encoders.text.architecture import TextArchitecture
from asif_jax.encoders.text.bert import BERT, BERTConfig, checkpoint_name

# What published checkpoints hold beyond the transformer.
_UNUSED = ("pooler.*", "lm_head.*", "classifier.*", "qa_outputs.*", "embeddings.position_ids")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoBERTaConfig(BERTConfig):
    """The sizes of a RoBERTa, by the names of its config.json."""

    pad_token_id: int = 1

    @property
    def longest(self) -> int:
        """The longest sentence, in tokens."""
        return self.max_position_embeddings - self.pad_token_id - 1


class RoBERTa(BERT):
    """Token ids to a vector for each token."""

    def __init__(self, config: RoBERTaConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, rngs=rngs)
        self.padding = config.pad_token_id

    def position_ids(self, ids: Array) -> Array:
        """Positions of tokens; see `positions_after_padding`."""
        return positions_after_padding(ids, self.padding)


def positions_after_padding(ids: Array, padding: int) -> Array:
    """Positions as fairseq counts them: from the padding's id on, which padding itself keeps.

    Args:
      ids: [batch, length] int32 token ids.
      padding: the id of the padding token.

    Returns:
      [batch, length] int32.

    Example:
      >>> positions_after_padding(jnp.array([[0, 7, 2, 1, 1]]), padding=1).tolist()
      [[2, 3, 4, 1, 1]]
    """
    real = (ids != padding).astype(jnp.int32)
    return jnp.cumsum(real, axis=-1) * real + padding


ARCHITECTURE = TextArchitecture(
    RoBERTaConfig, RoBERTa, checkpoint_name, prefix="roberta.", unused=_UNUSED
)
