"""Encoders of large batches: split over devices, or run piece by piece within a bound on memory.

Both take an encoder and return one, whose `apply` is as pure as before, so that they combine:
`sharded(microbatched(encoder, memory=2**30), mesh=mesh, axis="data")`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from asif_jax.core.sharding import split_rows, trim_rows
from asif_jax.encoders.encoder import Encoder
from asif_jax.encoders.pieces import in_pieces, row_count


def sharded(encoder: Encoder, *, mesh: Mesh, axis: str) -> Encoder:
    """Data parallelism: every device holds the parameters and encodes its part of the batch.

    Args:
      encoder: any encoder, whose rows do not depend on one another.
      mesh: the devices.
      axis: the mesh axis that batches are split over. A batch whose rows the devices cannot share
        evenly is padded.

    Returns:
      The encoder. Its parameters are copied to every device of the mesh, and its embeddings are
      split over `axis` if the devices share the rows evenly.

    Raises:
      ValueError: no such axis.

    Example:
      >>> copy = Encoder(lambda params, x: x, (), list, modality="text", name="copy", dimension=1,
      ...                identity="copy")
      >>> everywhere = sharded(copy, mesh=jax.make_mesh((1,), ("data",)), axis="data")
      >>> everywhere.apply(everywhere.params, jnp.ones([2, 1])).tolist()
      [[1.0], [1.0]]
    """
    if axis not in mesh.shape:
        raise ValueError(f"no axis {axis!r} in the mesh {dict(mesh.shape)}")
    rows, whole = PartitionSpec(axis), PartitionSpec()
    mapped = jax.shard_map(
        encoder.apply,
        mesh=mesh,
        in_specs=(whole, rows),
        out_specs=rows,
        # No value is shared between devices, whatever the encoder is made of.
        check_vma=False,
    )

    def apply(params: Any, batch: Any) -> Array:
        count = row_count(batch)
        batch = jax.tree.map(lambda array: split_rows(jnp.asarray(array), mesh, axis), batch)
        return trim_rows(mapped(params, batch), mesh, count)

    params = jax.device_put(encoder.params, NamedSharding(mesh, whole))
    return dataclasses.replace(encoder, apply=apply, params=params)


def microbatched(encoder: Encoder, *, memory: int) -> Encoder:
    """Encodes a batch piece by piece, with as many rows at once as fit in memory.

    When a batch of a new shape is traced, the compiler is asked how much memory a piece needs,
    which requires a few compilations.

    Args:
      encoder: any encoder, whose rows do not depend on one another.
      memory: the bytes that a device may use beside parameters, batch and embeddings.

    Returns:
      The encoder. Its `apply` raises ValueError if not even one row fits, or if the
      compiler does not tell.
    """

    def apply(params: Any, batch: Any) -> Array:
        rows = _rows_within(encoder.apply, params, batch, memory)
        return in_pieces(encoder.apply, rows)(params, batch)

    return dataclasses.replace(encoder, apply=apply)


def _rows_within(apply: Callable[[Any, Any], Array], params: Any, batch: Any, memory: int) -> int:
    """How many rows of a batch to take at once: all, or a power of two."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (params, batch))

    def needed(rows: int) -> int:
        analysis = jax.jit(in_pieces(apply, rows)).lower(*shapes).compile().memory_analysis()
        if analysis is None:
            raise ValueError("this platform's compiler does not say how much memory it uses")
        return analysis.temp_size_in_bytes

    rows = row_count(batch)
    while (bytes_needed := needed(rows)) > memory:
        if rows == 1:
            raise ValueError(f"one row needs {bytes_needed} bytes, more than memory={memory}")
        # What rows need grows with their number, at most in proportion.
        fitting = max(rows * memory // bytes_needed, 1)
        rows = 1 << (min(fitting, rows - 1).bit_length() - 1)
    return rows
