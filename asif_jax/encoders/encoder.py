"""What an encoder is: a pure function, its parameters, and how to prepare its input."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx
from jax import Array


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A frozen encoder of one modality.

    Attributes:
      apply: (params, batch) -> [batch, dimension] float32. Pure, so it can be jitted, mapped,
        sharded, differentiated and composed by the caller.
      params: the parameters, a pytree of arrays.
      preprocess: items (PIL images, or strings) -> the batch that `apply` takes. Runs on the host.
      modality: "image" or "text".
      name: a short name for people.
      dimension: of the embeddings.
      identity: architecture, weights and preprocessing in one line; two encoders with the same
        identity give the same embeddings.
    """

    apply: Callable[[Any, Any], Array]
    params: Any
    preprocess: Callable[[Sequence[Any]], Any]
    modality: str
    name: str
    dimension: int
    identity: str


def pure(model: nnx.Module) -> tuple[Callable[[Any, Any], Array], nnx.State]:
    """Splits a module into the pure function and the parameters of an `Encoder`.

    Args:
      model: a module whose call takes a batch and returns embeddings.

    Returns:
      (params, batch) -> embeddings, and params.
    """
    graph, params = nnx.split(model)

    def apply(params, batch):
        return nnx.merge(graph, params)(batch)

    return apply, params
