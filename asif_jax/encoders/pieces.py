"""A batch encoded piece by piece."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Apply = Callable[[Any, Any], Array]


def in_pieces(apply: Apply, rows: int) -> Apply:
    """Encodes a few rows at a time, one piece after the other.

    Args:
      apply: (params, batch) -> [batch, dimension], whose rows do not depend on one another.
      rows: the number of rows of a piece. A batch of no more rows is encoded at once.

    Returns:
      A function of the same arguments and result.

    Example:
      >>> double = in_pieces(lambda params, batch: params * batch, 2)
      >>> double(2.0, jnp.arange(5.0)[:, None])[:, 0].tolist()
      [0.0, 2.0, 4.0, 6.0, 8.0]
    """

    def mapped(params: Any, batch: Any) -> Array:
        if (count := row_count(batch)) <= rows:
            return apply(params, batch)

        def piece(start: Array) -> Array:
            part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, rows), batch)
            return apply(params, part)

        # The last piece begins early enough to be full, and repeats some of the one before.
        batch = jax.tree.map(jnp.asarray, batch)
        pieces = -(-count // rows)
        encoded = jax.lax.map(piece, jnp.minimum(jnp.arange(pieces) * rows, count - rows))
        last = encoded[-1, pieces * rows - count :]
        return jnp.concatenate([encoded[:-1].reshape(-1, encoded.shape[-1]), last])

    return mapped


def row_count(batch: Any) -> int:
    """Number of rows of a batch.

    Args:
      batch: a pytree of arrays.

    Returns:
      The length of their first axis.
    """
    return jax.tree.leaves(batch)[0].shape[0]
