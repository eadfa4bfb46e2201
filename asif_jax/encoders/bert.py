"""BERT as a sentence encoder: mean of the token vectors, unit length.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018; Reimers and Gurevych,
"Sentence-BERT", 2019 (mean pooling).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from asif_jax.encoders.weights import read_tensors, with_weights


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT, by the names of its config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "BertConfig":
        """Takes what it knows from a config.json.

        Args:
          config: the content of config.json.

        Returns:
          The sizes.

        Raises:
          ValueError: a size is missing, or the activation is not the exact GELU.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if missing := [name for name in names if name not in config]:
            raise ValueError(f"the BERT configuration lacks {', '.join(missing)}")
        if config.get("hidden_act", "gelu") != "gelu":
            raise ValueError(f"unsupported activation {config['hidden_act']!r}, not gelu")
        return cls(**{name: config[name] for name in names})


class Layer(nnx.Module):
    """Self-attention and a feed-forward network, each added to its input and then normalized."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        width, heads = config.hidden_size, config.num_attention_heads
        self.head_shape = (heads, width // heads)
        self.query = nnx.Linear(width, width, rngs=rngs)
        self.key = nnx.Linear(width, width, rngs=rngs)
        self.value = nnx.Linear(width, width, rngs=rngs)
        self.attended = nnx.Linear(width, width, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(width, epsilon=config.layer_norm_eps, rngs=rngs)
        self.up = nnx.Linear(width, config.intermediate_size, rngs=rngs)
        self.down = nnx.Linear(config.intermediate_size, width, rngs=rngs)
        self.output_norm = nnx.LayerNorm(width, epsilon=config.layer_norm_eps, rngs=rngs)

    def __call__(self, tokens: Array, mask: Array) -> Array:
        query, key, value = (
            linear(tokens).reshape(*tokens.shape[:-1], *self.head_shape)
            for linear in (self.query, self.key, self.value)
        )
        attention = jax.nn.dot_product_attention(query, key, value, mask=mask[:, None, None, :])
        tokens = self.attention_norm(tokens + self.attended(attention.reshape(tokens.shape)))
        hidden = jax.nn.gelu(self.up(tokens), approximate=False)
        return self.output_norm(tokens + self.down(hidden))


class SentenceBert(nnx.Module):
    """Token ids to unit sentence embeddings."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        width = config.hidden_size
        self.words = nnx.Embed(config.vocab_size, width, rngs=rngs)
        self.positions = nnx.Embed(config.max_position_embeddings, width, rngs=rngs)
        self.types = nnx.Embed(config.type_vocab_size, width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=config.layer_norm_eps, rngs=rngs)
        self.layers = nnx.List([Layer(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(self, batch: Mapping[str, Array]) -> Array:
        """Embeds sentences.

        Args:
          batch: "ids", [batch, length] int32 token ids, and "mask", [batch, length] bool, false
            where a sentence is padded.

        Returns:
          [batch, width] float32 of unit length.
        """
        ids, mask = batch["ids"], batch["mask"]
        tokens = self.words(ids) + self.positions(jnp.arange(ids.shape[-1]))
        tokens = self.norm(tokens + self.types(jnp.zeros_like(ids)))
        for layer in self.layers:
            tokens = layer(tokens, mask)
        weights = mask[..., None].astype(tokens.dtype)
        mean = jnp.sum(tokens * weights, axis=-2) / jnp.maximum(jnp.sum(weights, axis=-2), 1.0)
        return mean / jnp.maximum(jnp.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)


_CHECKPOINT_MODULES = {
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
    "output_norm": "output.LayerNorm",
}


def checkpoint_name(path: tuple[Any, ...]) -> str:
    """Name of a parameter in the published checkpoint.

    Args:
      path: its path in `SentenceBert`.

    Returns:
      The tensor's name.

    Example:
      >>> checkpoint_name(("layers", 3, "up", "kernel"))
      'encoder.layer.3.intermediate.dense.weight'
    """
    *prefix, module, parameter = path
    layer = [f"encoder.layer.{prefix[1]}"] if prefix else []
    kind = "bias" if parameter == "bias" else "weight"
    return ".".join([*layer, _CHECKPOINT_MODULES[module], kind])


def load_bert(directory: Path) -> SentenceBert:
    """Loads a BERT from a directory with config.json and model.safetensors.

    Args:
      directory: the directory.

    Returns:
      The module with its weights.

    Raises:
      ValueError: a file or tensor is missing, damaged or misshaped.
    """
    config = BertConfig.from_mapping(json.loads((directory / "config.json").read_bytes()))
    path = directory / "model.safetensors"
    tensors = {name.removeprefix("bert."): a for name, a in read_tensors(path).items()}
    return with_weights(
        lambda rngs: SentenceBert(config, rngs=rngs), tensors, checkpoint_name, source=path
    )
