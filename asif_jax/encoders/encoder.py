"""What an encoder is: a pure function, its parameters, and how to prepare its input."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx
from jax import Array

from asif_jax.encoders.pieces import Apply, in_pieces

_ROWS_ON_CPU = 8


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A frozen encoder of one modality: one that `load` returns, or any pure function of yours.

    Attributes:
      apply: computes embeddings, (params, batch) -> [batch, dimension] float32. It is pure, so that
        you can jit, map, shard, differentiate and compose it.
      params: holds the parameters, a pytree of arrays.
      preprocess: turns a sequence of items of the modality (PIL images, strings, or whatever your
        modality consists of) into the batch that `apply` takes. It runs on the host.
      modality: names what is encoded: "image", "text", or any other name, such as "speech".
      name: is a short name for people.
      dimension: is the length of an embedding.
      identity: states architecture, weights and preprocessing in one line. Two encoders of the same
        identity give the same embeddings.

    Example:
      >>> import jax.numpy as jnp
      >>> means = Encoder(
      ...     lambda params, pixels: pixels.mean(axis=(1, 2)) * params,
      ...     jnp.array([0.3, 0.6, 0.1]),
      ...     lambda images: jnp.stack([jnp.asarray(image) for image in images]),
      ...     modality="image", name="mean color", dimension=3, identity="mean color, version 1",
      ... )
      >>> means.apply(means.params, jnp.full([1, 4, 4, 3], 10.0)).round(2).tolist()
      [[3.0, 6.0, 1.0]]
    """

    apply: Apply
    params: Any
    preprocess: Callable[[Sequence[Any]], Any]
    modality: str
    name: str
    dimension: int
    identity: str


def pure(
    model: nnx.Module, *, before: Callable[[Any], Any] = lambda batch: batch
) -> tuple[Apply, nnx.State]:
    """Splits a module into the pure function and the parameters of an `Encoder`.

    On a CPU the function encodes a few rows at a time, whose activations stay in the cache.

    Args:
      model: a module whose call takes a batch and returns embeddings.
      before: what happens to a batch before the module.

    Returns:
      (params, batch) -> embeddings, jitted, and params.
    """
    graph, params = nnx.split(model)

    def whole(params: Any, batch: Any) -> Array:
        return nnx.merge(graph, params)(before(batch))

    @jax.jit
    def apply(params: Any, batch: Any) -> Array:
        pieces = in_pieces(whole, _ROWS_ON_CPU)
        return jax.lax.platform_dependent(params, batch, cpu=pieces, default=whole)

    return apply, params
