"""A version of a store as a model: for a command, or spread over devices to serve from."""

import functools
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from asif_jax import methods
from asif_jax.core.anchors import Anchors, check_finite
from asif_jax.core.in_place import place_slab
from asif_jax.model import Model
from asif_jax.model import create as create_model
from asif_jax.store.commits import exchange
from asif_jax.store.database import create, open_store
from asif_jax.store.failures import StoreError, told
from asif_jax.store.layout import Header, Settings
from asif_jax.store.records import StoredPair
from asif_jax.store.snapshots import Snapshot, StoredPairs, snapshot
from asif_jax.store.sums import known_sums

# Read at once, twice: what opening a store needs on the host beside the arrays.
_SLAB_BYTES = 1 << 25


class SlotPairs(Sequence[StoredPair]):
    """What the rows of a version were made of, by row: rows are the slots of a model that serves.

    Args:
      found: the version.
    """

    def __init__(self, found: Snapshot):
        self._pairs = StoredPairs(found)
        self._rows = len(found.live)

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, row: int) -> StoredPair: ...

    @overload
    def __getitem__(self, row: slice) -> list[StoredPair]: ...

    def __getitem__(self, row: int | slice) -> StoredPair | list[StoredPair]:
        if isinstance(row, slice):
            return [self._pairs.at(i) for i in range(*row.indices(self._rows))]
        return self._pairs.at(int(row))


def load(where: str | Path, version: int | str | None = None) -> Model:
    """Reads the live pairs of a store and fits the store's method to them.

    Args:
      where: a directory or URL.
      version: by number or name; by default the newest.

    Returns:
      The model, all of its slots live.

    Raises:
      StoreError: no store is there, no such version, no live pair, or it is damaged.
    """
    found = snapshot(open_store(where), version)
    pairs = StoredPairs(found)
    if not len(pairs):
        raise StoreError(f"{where} holds no pairs")
    with told(str(where)):
        read = {m: array[pairs.rows[0] : pairs.rows[-1] + 1] for m, array in found.arrays.items()}
        arrays = {m: np.asarray(array.read().result()) for m, array in read.items()}
    if pairs.rows[-1] - pairs.rows[0] + 1 > len(pairs):
        arrays = {m: array[pairs.rows - pairs.rows[0]] for m, array in arrays.items()}
    embeddings = {modality: jnp.asarray(array) for modality, array in arrays.items()}
    return _fitted(found, Anchors(embeddings, jnp.ones([len(pairs)], bool)), pairs)


def save(where: str | Path, model: Model) -> None:
    """Makes a new store of a model.

    Args:
      where: a new directory or URL.
      model: the model, all of its slots live.

    Raises:
      ValueError: an embedding is not finite.
      StoreError: something is there already, or it cannot be written.
    """
    units = {m: np.asarray(array) for m, array in model.anchors.embeddings.items()}
    for modality, array in units.items():
        check_finite(array, name=f"{modality} embeddings")
    dimensions = {modality: array.shape[-1] for modality, array in units.items()}
    several = tuple(modality for modality, array in units.items() if array.ndim == 3)
    dtype = next(iter(units.values())).dtype.name
    header = Header(model.encoders, dimensions, dtype, several=several)
    settings = Settings(model.method.name, model.method.settings, model.calibration)
    store = create(where, header, settings=settings)
    # Unit vectors as they are: normalized again they would be rounded again.
    exchange(store, (), units, model.pairs, message="save")


def open_model(
    found: Snapshot,
    *,
    capacity: int | None = None,
    mesh: Mesh | None = None,
    anchors_axis: str | None = None,
) -> Model:
    """Reads a version as a model that can be edited beside its store, as `open_anchors` does.

    Args:
      found: the version.
      capacity: as for `open_anchors`.
      mesh: as for `open_anchors`.
      anchors_axis: as for `open_anchors`.

    Returns:
      The model; slot i is row i of the store.

    Raises:
      ValueError: too small a capacity.
      StoreError: the version is damaged.
    """
    anchors = open_anchors(found, capacity=capacity, mesh=mesh, anchors_axis=anchors_axis)
    return _fitted(found, anchors, SlotPairs(found))


def _fitted(found: Snapshot, anchors: Anchors, pairs: Sequence[StoredPair]) -> Model:
    name, settings, calibration = found.settings
    method = methods.named(name, settings)
    return create_model(
        anchors,
        pairs,
        found.header.encoders,
        method,
        sums=known_sums(found, method),
        calibration=calibration,
    )


def open_anchors(
    found: Snapshot,
    *,
    capacity: int | None = None,
    mesh: Mesh | None = None,
    anchors_axis: str | None = None,
) -> Anchors:
    """Reads a version into the memory of devices; every process reads what its devices hold.

    Args:
      found: the version.
      capacity: slots to hold, at least the rows of the version, so that pairs can be added; rounded
        up to a multiple of the devices. By default the rows.
      mesh: the devices; by default one.
      anchors_axis: the mesh axis that the pairs are split over.

    Returns:
      Anchors whose slot i is row i of the store; rows that were removed are not live.

    Raises:
      ValueError: too small a capacity.
      StoreError: the version is damaged.
    """
    rows = len(found.live)
    slots = max(rows, 1) if capacity is None else capacity
    if slots < rows:
        raise ValueError(f"a capacity of {slots} is too small for {rows} rows")
    sharding = SingleDeviceSharding(jax.devices()[0])
    if mesh is not None:
        slots += -slots % mesh.shape[anchors_axis]
        sharding = NamedSharding(mesh, PartitionSpec(anchors_axis))
    live = np.pad(found.live, (0, slots - rows))
    with told(found.url):
        embeddings = {
            modality: _read_array(array, slots, sharding)
            for modality, array in found.arrays.items()
        }
    return Anchors(
        embeddings, jax.make_array_from_callback((slots,), sharding, lambda index: live[index])
    )


def _read_array(source: ts.TensorStore, slots: int, sharding: Sharding) -> Array:
    shape = slots, *source.shape[1:]
    parts = [
        _read_part(source, *index[0].indices(slots)[:2], SingleDeviceSharding(device))
        for device, index in sharding.addressable_devices_indices_map(shape).items()
        if index is not None
    ]
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def _read_part(source: ts.TensorStore, first: int, last: int, where: SingleDeviceSharding) -> Array:
    """Rows first..last on a device, in slabs: one is read while the one before is placed."""
    width, dtype = source.shape[1:], source.dtype.numpy_dtype
    array = _zeros((last - first, *width), dtype.name, where)
    last = min(last, source.shape[0])
    size = max(_SLAB_BYTES // (math.prod(width) * dtype.itemsize), 1)
    slabs = itertools.cycle([np.empty([size, *width], dtype) for _ in range(2)])

    def read(start: int) -> tuple[np.ndarray, ts.WriteFutures]:
        slab = next(slabs)[: min(size, last - start)]
        return slab, ts.array(slab).write(source[start : start + len(slab)])

    following = read(first) if first < last else None
    for start in range(first, last, size):
        assert following is not None
        slab, reading = following
        reading.result()
        following = read(start + size) if start + size < last else None
        array = place_slab(array, start - first, slab).block_until_ready()
    return array


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(shape: tuple[int, ...], dtype: str, sharding: SingleDeviceSharding) -> Array:
    return jax.lax.with_sharding_constraint(jnp.zeros(shape, dtype), sharding)
