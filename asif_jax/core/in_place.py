"""Edits of a model in its own memory, for a model that serves while its pairs change.

`anchors.insert` and its like return a new model and leave the old one alone, which takes a copy.
The functions here overwrite the old model, which is donated to them: only a few rows are written,
and nothing is compiled after the first call.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from asif_jax.core.anchors import Anchors

_BLOCK = 1024


def overwrite(
    anchors: Anchors, first: int, units: Mapping[str, np.ndarray], live: ArrayLike
) -> Anchors:
    """Writes pairs into neighbouring slots of a model, which is donated.

    Args:
      anchors: a model; its arrays are donated and may not be used any more.
      first: the first slot.
      units: modality name -> [b, d] unit vectors of the model's dtype, on the host.
      live: [b] bool, whether a slot is live then.

    Returns:
      The model with the pairs in slots first..first + b - 1.

    Raises:
      ValueError: the model has no such slots.

    Example:
      >>> from asif_jax.core import anchors
      >>> model = anchors.create({"image": np.eye(2)}, capacity=4)
      >>> overwrite(model, 2, {"image": np.eye(2, dtype="float32")}, [True, False]).live.tolist()
      [True, True, True, False]
    """
    live = np.asarray(live, bool)
    capacity, count = anchors.capacity, len(live)
    if not 0 <= first <= capacity - count:
        raise ValueError(f"slots {first} to {first + count - 1} are not among {capacity}")
    values = {modality: np.asarray(rows) for modality, rows in units.items()}
    size = min(_BLOCK, _slots_a_device(anchors))
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        rows = {modality: _padded(array[part], size) for modality, array in values.items()}
        given = np.arange(size) < len(live[part])
        block = rows, _padded(live[part], size), given
        anchors = _writer(_split(anchors))(anchors, jnp.int32(first + start), *block)
    return anchors


def clear(anchors: Anchors, slots: Sequence[int] | np.ndarray) -> Anchors:
    """Frees slots of a model, which is donated; their rows keep their bytes.

    Args:
      anchors: a model; its arrays are donated and may not be used any more.
      slots: [b] int, on the host; those that do not exist are ignored.

    Returns:
      The model without the pairs in those slots.

    Example:
      >>> from asif_jax.core import anchors
      >>> clear(anchors.create({"image": np.eye(2)}), [0]).live.tolist()
      [False, True]
    """
    slots = np.asarray(slots, np.int32)
    live = anchors.live
    for start in range(0, len(slots), _BLOCK):
        part = slots[start : start + _BLOCK]
        # Padded with a slot that does not exist, so that one program serves any number.
        live = _clearer()(live, np.pad(part, (0, _BLOCK - len(part)), constant_values=-1))
    return anchors._replace(live=live)


def place_slab(array: Array, first: int, rows: ArrayLike) -> Array:
    """Writes rows into an array on one device, which is donated.

    Args:
      array: [n, d]; may not be used any more.
      first: the first row.
      rows: [b, d], b + first at most n.

    Returns:
      [n, d], with the rows.
    """
    return _placer()(array, jnp.int32(first), rows)


@functools.cache
def _writer(sharding: NamedSharding | None):
    return jax.jit(
        functools.partial(_write_block, sharding),
        donate_argnums=0,
        compiler_options=_compiler_options(),
    )


@functools.cache
def _placer():
    def place(array: Array, first: Array, rows: Array) -> Array:
        return jax.lax.dynamic_update_slice(array, rows, (first,) + (0,) * (array.ndim - 1))

    return jax.jit(place, donate_argnums=0, compiler_options=_compiler_options())


@functools.cache
def _clearer():
    def clear(live: Array, slots: Array) -> Array:
        slots = jnp.where(slots < 0, live.shape[0], slots)
        return live.at[slots].set(False, mode="drop", out_sharding=jax.typeof(live).sharding)

    return jax.jit(clear, donate_argnums=0)


def _compiler_options() -> dict[str, str] | None:
    # On a CPU, XLA would turn all of a bfloat16 array into float32 to write a few rows of it.
    if jax.default_backend() == "cpu":
        return {"xla_disable_hlo_passes": "float-normalization-bf16"}
    return None


def _write_block(
    sharding: NamedSharding | None,
    anchors: Anchors,
    first: Array,
    rows: Mapping[str, Array],
    live: Array,
    given: Array,
) -> Anchors:
    """Writes those rows of a block that are given."""

    def write(array: Array, rows: Array) -> Array:
        if sharding is None:
            return _set_rows(array, first, rows, given, 0)
        axis = sharding.spec[0]

        def write_part(part: Array, first: Array, rows: Array, given: Array) -> Array:
            offset = jax.lax.axis_index(axis) * part.shape[0]
            return _set_rows(part, first, rows, given, offset)

        whole = PartitionSpec()
        return jax.shard_map(
            write_part,
            mesh=sharding.mesh,
            in_specs=(sharding.spec, whole, whole, whole),
            out_specs=sharding.spec,
        )(array, first, rows, given)

    embeddings = {m: write(array, rows[m]) for m, array in anchors.embeddings.items()}
    return Anchors(embeddings, write(anchors.live, live))


def _set_rows(array: Array, first: Array, rows: Array, given: Array, offset: ArrayLike) -> Array:
    """Overwrites rows first - offset and on, as far as they are in the array and given."""
    count = rows.shape[0]
    start = jnp.clip(first - offset, 0, array.shape[0] - count)
    places = start + offset + jnp.arange(count) - first
    here = (places >= 0) & (places < count)
    places = jnp.clip(places, 0, count - 1)
    here = jnp.expand_dims(here & given[places], range(1, array.ndim))
    former = jax.lax.dynamic_slice_in_dim(array, start, count)
    latter = jnp.where(here, rows[places], former)
    return jax.lax.dynamic_update_slice_in_dim(array, latter, start, axis=0)


def _split(anchors: Anchors) -> NamedSharding | None:
    """How the slots are split over devices, if they are."""
    sharding = anchors.live.sharding
    return sharding if isinstance(sharding, NamedSharding) and any(sharding.spec) else None


def _slots_a_device(anchors: Anchors) -> int:
    return anchors.live.sharding.shard_shape(anchors.live.shape)[0]


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    return np.pad(rows, ((0, size - len(rows)),) + ((0, 0),) * (rows.ndim - 1))
