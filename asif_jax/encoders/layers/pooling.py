"""From the vectors of a sentence's tokens to one embedding.

Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, section 3; Muennighoff, "SGPT", 2022, for means
weighted by position.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike


def _first(tokens: Array, mask: Array) -> Array:
    return tokens[..., 0, :]


def _last(tokens: Array, mask: Array) -> Array:
    last = jnp.maximum(jnp.sum(mask, axis=-1) - 1, 0)
    return jnp.take_along_axis(tokens, last[..., None, None], axis=-2)[..., 0, :]


def _largest(tokens: Array, mask: Array) -> Array:
    return jnp.max(jnp.where(mask[..., None], tokens, -1e9), axis=-2)


def _mean(tokens: Array, mask: Array) -> Array:
    return _weighted_mean(tokens, mask.astype(tokens.dtype))


def _mean_by_position(tokens: Array, mask: Array) -> Array:
    return _weighted_mean(tokens, mask * jnp.arange(1.0, mask.shape[-1] + 1))


def _mean_by_root(tokens: Array, mask: Array) -> Array:
    count = jnp.sum(mask, axis=-1, keepdims=True)
    return _mean(tokens, mask) * jnp.sqrt(count.astype(tokens.dtype))


def _weighted_mean(tokens: Array, weights: Array) -> Array:
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return jnp.sum(tokens * weights[..., None], axis=-2) / jnp.maximum(total, 1e-9)


# By the names of sentence-transformers. [batch, length, width], [batch, length] -> [batch, width].
POOLINGS: Mapping[str, Callable[[Array, Array], Array]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _mean_by_position,
    "lasttoken": _last,
}

DENSE_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "Identity": lambda x: x,
    "Tanh": jnp.tanh,
    "ReLU": jax.nn.relu,
    "Sigmoid": jax.nn.sigmoid,
}


@dataclasses.dataclass(frozen=True)
class Dense:
    """A linear map of an embedding and what is applied to the result.

    Attributes:
      inputs: is the width of its input.
      outputs: is the width of its output.
      name: precedes ".weight" and ".bias" in the names of its tensors in the checkpoint.
      bias: says whether it adds a bias.
      activation: is "Identity", "Tanh", "ReLU" or "Sigmoid", as PyTorch names them.
    """

    inputs: int
    outputs: int
    name: str
    bias: bool = True
    activation: str = "Identity"


@dataclasses.dataclass(frozen=True)
class Head:
    """How token vectors become an embedding.

    Attributes:
      poolings: lists names among `POOLINGS`, whose results are concatenated.
      dense: lists linear maps, which are applied one after the other.
      unit: says whether embeddings are scaled to unit length in the end.
    """

    poolings: tuple[str, ...] = ("mean",)
    dense: tuple[Dense, ...] = ()
    unit: bool = False


def pool_tokens(tokens: Array, mask: Array, poolings: Sequence[str]) -> Array:
    """One vector of a sentence's tokens, in float32.

    Args:
      tokens: [batch, length, width].
      mask: [batch, length] bool, false where a sentence is padded.
      poolings: names among `POOLINGS`.

    Returns:
      [batch, len(poolings) * width] float32.

    Example:
      >>> tokens = jnp.array([[[1.0], [5.0], [9.0]]])
      >>> pool_tokens(tokens, jnp.array([[True, True, False]]), ["cls", "mean", "max"]).tolist()
      [[1.0, 3.0, 5.0]]
    """
    tokens = tokens.astype(jnp.float32)
    return jnp.concatenate([POOLINGS[name](tokens, mask) for name in poolings], axis=-1)


class Projection(nnx.Module):
    """The `dense` part of a head."""

    def __init__(self, dense: Sequence[Dense], *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.activations = tuple(DENSE_ACTIVATIONS[layer.activation] for layer in dense)
        self.layers = nnx.List(
            [
                nnx.Linear(
                    layer.inputs,
                    layer.outputs,
                    use_bias=layer.bias,
                    dtype=dtype,
                    param_dtype=dtype,
                    rngs=rngs,
                )
                for layer in dense
            ]
        )

    def __call__(self, embeddings: Array) -> Array:
        for layer, activation in zip(self.layers, self.activations, strict=True):
            embeddings = activation(layer(embeddings))
        return embeddings.astype(jnp.float32)


class SentenceEncoder(nnx.Module):
    """Token ids to sentence embeddings: a transformer and a head."""

    def __init__(
        self,
        transformer: nnx.Module,
        head: Head,
        *,
        longest: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.transformer = transformer
        self.longest = longest
        self.poolings = head.poolings
        self.projection = Projection(head.dense, dtype=dtype, rngs=rngs)
        self.unit = head.unit

    def __call__(self, batch: Mapping[str, Array]) -> Array:
        """Embeds sentences.

        Args:
          batch: "ids", [batch, length] int32 token ids, and "mask", [batch, length] bool, false
            where a sentence is padded.

        Returns:
          [batch, dimension] float32.

        Raises:
          ValueError: sentences longer than the transformer has positions for.
        """
        if (length := batch["ids"].shape[-1]) > self.longest:
            raise ValueError(f"sentences of {length} tokens, where {self.longest} are the most")
        tokens = self.transformer(batch["ids"], batch["mask"])  # pyright: ignore[reportCallIssue]
        embeddings = self.projection(pool_tokens(tokens, batch["mask"], self.poolings))
        if not self.unit:
            return embeddings
        length = jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
        return embeddings / jnp.maximum(length, 1e-12)
