"""The projection and the scores over a mesh of devices, on one host or several.

The anchors are split over one axis of the mesh, the queries over another if there is one. Every
device selects the k best of its own anchors. Then the k candidates of each device are gathered, and
the best of those are kept. The similarities never leave the device that computed them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from asif_jax.core import scoring
from asif_jax.core.anchors import Anchors, check_finite, check_pairs, embeddings_of
from asif_jax.core.cosine import normalize
from asif_jax.core.nearest import DEFAULT_MEMORY, check_nearest, nearest_anchors
from asif_jax.core.projection import RelativeRepresentation, represent_nearest
from asif_jax.core.top_k import merge


@functools.partial(
    jax.jit,
    static_argnames=("mesh", "anchors_axis", "queries_axis", "k", "signed", "normalized", "memory"),
)
def project(
    embeddings: ArrayLike,
    anchors: ArrayLike,
    *,
    mesh: Mesh,
    anchors_axis: str,
    queries_axis: str | None = None,
    k: int = 800,
    p: ArrayLike = 8.0,
    live: ArrayLike | None = None,
    signed: bool = False,
    normalized: bool = False,
    memory: int = DEFAULT_MEMORY,
) -> RelativeRepresentation:
    """Relative representation over anchors that are split over devices, as `asif_jax.project`.

    Args:
      embeddings: [b, d] real, of one modality.
      anchors: [n, d] float32 or bfloat16. Where n does not divide, a padded copy is made; `place`
        avoids that.
      mesh: the devices; static.
      anchors_axis: the mesh axis that the anchors are split over; static.
      queries_axis: the mesh axis that the embeddings are split over; static. None, the default,
        gives every device all of them.
      k: how many similarities are kept, at most n; static.
      p: the exponent, a real scalar.
      live: [n] bool, false for anchors that are removed or not yet filled; all live by default.
      signed: keep negative similarities (see `asif_jax.project`).
      normalized: the anchors are unit vectors already, which saves a copy of them.
      memory: bytes that each device may use beside the arguments and the result; static.

    Returns:
      [b, k] relative representations, the same as on one device, split over `queries_axis`.

    Raises:
      ValueError: shapes that do not fit, k outside 1..n, too little memory, or no such axis.

    Example:
      >>> mesh = jax.make_mesh((1,), ("pairs",))
      >>> project([[0.9, 0.1]], jnp.eye(2), mesh=mesh, anchors_axis="pairs", k=1).indices.tolist()
      [[0]]
    """
    _check_axes(mesh, anchors_axis, queries_axis)
    embeddings, anchors = jnp.asarray(embeddings), jnp.asarray(anchors)
    live = check_nearest(embeddings, anchors, k, live)
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings must be [b, d]: got {embeddings.shape}")
    (b, _), (n, _) = embeddings.shape, anchors.shape
    live = jnp.ones([n], bool) if live is None else live
    embeddings = split_rows(embeddings, mesh, queries_axis)
    anchors, live = split_rows(anchors, mesh, anchors_axis), split_rows(live, mesh, anchors_axis)
    rows = live.shape[0] // mesh.shape[anchors_axis]

    def nearest(embeddings: Array, anchors: Array, live: Array, p: Array) -> RelativeRepresentation:
        options = {"live": live, "normalized": normalized, "memory": memory}
        values, indices = nearest_anchors(embeddings, anchors, min(k, rows), **options)
        indices += rows * jax.lax.axis_index(anchors_axis)
        gather = functools.partial(jax.lax.all_gather, axis_name=anchors_axis, axis=1, tiled=True)
        values, indices = merge(gather(values), gather(indices), k)
        return represent_nearest(embeddings, values, indices, size=n, p=p, signed=signed)

    queries, pairs = PartitionSpec(queries_axis), PartitionSpec(anchors_axis)
    result = jax.shard_map(
        nearest,
        mesh=mesh,
        in_specs=(queries, pairs, pairs, PartitionSpec()),
        out_specs=queries,
        # Every device of the anchors' axis merges the same candidates, which JAX cannot see.
        check_vma=False,
    )(embeddings, anchors, live, jnp.asarray(p))
    return jax.tree.map(lambda array: trim_rows(array, mesh, b), result)


def represent(
    embeddings: ArrayLike,
    anchors: Anchors,
    *,
    modality: str,
    mesh: Mesh,
    anchors_axis: str,
    queries_axis: str | None = None,
    k: int = 800,
    p: ArrayLike = 8.0,
    signed: bool = False,
    memory: int = DEFAULT_MEMORY,
) -> RelativeRepresentation:
    """Relative representation with respect to a model that is split over devices.

    Args:
      embeddings: [b, d] real, of one modality.
      anchors: a model, for example from `place`.
      modality: whose embeddings these are.
      mesh: the devices; static, as are all that follow but p.
      anchors_axis: the mesh axis that the pairs are split over.
      queries_axis: the mesh axis that the embeddings are split over, if any.
      k: how many similarities are kept, at most the capacity.
      p: the exponent, a real scalar.
      signed: keep negative similarities (see `asif_jax.project`).
      memory: bytes that each device may use beside the arguments and the result.

    Returns:
      [b, k] relative representations, split over `queries_axis`.

    Raises:
      ValueError: an unknown modality, shapes that do not fit, or no such axis.

    Example:
      >>> mesh = jax.make_mesh((1,), ("pairs",))
      >>> model = place({"image": np.eye(2)}, mesh=mesh, anchors_axis="pairs")
      >>> options = {"modality": "image", "mesh": mesh, "anchors_axis": "pairs", "k": 1}
      >>> represent([[0.1, 0.9]], model, **options).indices.tolist()
      [[1]]
    """
    return project(
        embeddings,
        embeddings_of(anchors, modality),
        mesh=mesh,
        anchors_axis=anchors_axis,
        queries_axis=queries_axis,
        k=k,
        p=p,
        live=anchors.live,
        signed=signed,
        normalized=True,
        memory=memory,
    )


@functools.partial(jax.jit, static_argnames=("mesh", "queries_axis", "gallery_axis"))
def similarity(
    queries: RelativeRepresentation,
    gallery: RelativeRepresentation,
    *,
    mesh: Mesh,
    queries_axis: str | None = None,
    gallery_axis: str | None = None,
) -> Array:
    """Cosine of every query to every gallery item; each device scores its part of both.

    Args:
      queries: [b, k] representations.
      gallery: [m, l] representations over the same anchors.
      mesh: the devices; static.
      queries_axis: the mesh axis that the queries are split over, if any; static.
      gallery_axis: the mesh axis that the gallery is split over, if any; static.

    Returns:
      [b, m] float32 scores, as `asif_jax.similarity`, split over both axes.

    Raises:
      ValueError: the two are not batches, are over different anchors, or there is no such axis.

    Example:
      >>> eye = RelativeRepresentation(jnp.ones([2, 1]), jnp.array([[0], [1]]), 2)
      >>> mesh = jax.make_mesh((1,), ("items",))
      >>> similarity(eye, eye, mesh=mesh, gallery_axis="items").tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    _check_axes(mesh, queries_axis, gallery_axis)
    scoring.check_batches(queries, gallery)
    (b, _), (m, _) = queries.values.shape, gallery.values.shape

    parts = [
        jax.tree.map(lambda array, axis=axis: split_rows(array, mesh, axis), representation)
        for representation, axis in ((queries, queries_axis), (gallery, gallery_axis))
    ]
    scores = jax.shard_map(
        scoring.similarity,
        mesh=mesh,
        in_specs=(PartitionSpec(queries_axis), PartitionSpec(gallery_axis)),
        out_specs=PartitionSpec(queries_axis, gallery_axis),
        check_vma=False,
    )(*parts)
    return trim_rows(scores, mesh, b, m)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Embeddings that are read by range: from files, a database, or a generator.

    Attributes:
      shape: (n, d), of all of them.
      read: gives rows start..stop as a [stop - start, d] array, for `read(start, stop)`.
    """

    shape: tuple[int, int]
    read: Callable[[int, int], ArrayLike]


def place(
    embeddings: Mapping[str, Any],
    *,
    mesh: Mesh,
    anchors_axis: str,
    capacity: int | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Anchors:
    """Builds a model that is split over devices, so that no single device has to hold all of it.

    Each process reads the rows of its own devices, one device's at a time. Runs on the host.

    Args:
      embeddings: modality name -> [n, d] real and finite; row i of every modality is pair i. Arrays
        in host memory or mapped from a file (anything with a shape and slices), or `Rows`.
      mesh: the devices.
      anchors_axis: the mesh axis that the pairs are split over.
      capacity: slots to hold, at least n, rounded up to a multiple of the axis; by default n.
      dtype: float32, or bfloat16 for half the memory.

    Returns:
      Anchors whose arrays are split over `anchors_axis`, with the pairs in slots 0..n-1.

    Raises:
      ValueError: no modality, no pair, differing numbers of pairs, non-finite values, rows of a
        wrong shape, too small a capacity, or no such axis.

    Example:
      >>> mesh = jax.make_mesh((1,), ("pairs",))
      >>> rows = Rows((3, 2), lambda start, stop: np.ones([stop - start, 2]))
      >>> place({"text": rows}, mesh=mesh, anchors_axis="pairs").live.tolist()
      [True, True, True]
    """
    _check_axes(mesh, anchors_axis)
    count = check_pairs({modality: tuple(rows.shape) for modality, rows in embeddings.items()})
    slots = count if capacity is None else capacity
    if slots < count:
        raise ValueError(f"a capacity of {slots} is too small for {count} pairs")
    slots += -slots % mesh.shape[anchors_axis]
    sharding = NamedSharding(mesh, PartitionSpec(anchors_axis))
    # Normalizing on the devices, in place, gives the bits that `create` gives.
    donated = 0 if jnp.dtype(dtype) == jnp.float32 else ()
    units = jax.jit(lambda rows: normalize(rows).astype(dtype), donate_argnums=donated)

    def place_modality(modality: str) -> Array:
        source = embeddings[modality]

        def read(index: Any) -> np.ndarray:
            return _read(source, f"{modality} embeddings", *index[0].indices(slots)[:2])

        return units(jax.make_array_from_callback((slots, source.shape[1]), sharding, read))

    filled = np.arange(slots) < count
    live = jax.make_array_from_callback((slots,), sharding, lambda index: filled[index])
    return Anchors({modality: place_modality(modality) for modality in embeddings}, live)


def _read(source: Any, name: str, start: int, stop: int) -> np.ndarray:
    """Rows start..stop in float32, those beyond the last pair zero."""
    count, d = source.shape
    result = np.zeros([stop - start, d], np.float32)
    end = min(stop, count)
    if start < end:
        rows = source.read(start, end) if isinstance(source, Rows) else source[start:end]
        rows = np.asarray(rows)
        if rows.shape != (end - start, d):
            raise ValueError(f"{name}: rows {start}..{end} of width {d} were read as {rows.shape}")
        check_finite(rows, name=name, first=start)
        result[: len(rows)] = rows
    return result


def _check_axes(mesh: Mesh, *axes: str | None) -> None:
    for axis in axes:
        if axis is not None and axis not in mesh.shape:
            raise ValueError(f"no axis {axis!r} in the mesh {dict(mesh.shape)}")


def split_rows(array: Array, mesh: Mesh, axis: str | None) -> Array:
    """Splits the first dimension over a mesh axis, with zeros after it where it does not divide.

    Args:
      array: [b, ...].
      mesh: the devices.
      axis: the mesh axis; None leaves the array whole.

    Returns:
      The array, padded with zero rows up to the next multiple of the devices on the axis.
    """
    surplus = 0 if axis is None else -array.shape[0] % mesh.shape[axis]
    if surplus:
        array = _reshard(array, mesh, PartitionSpec())
        array = jnp.pad(array, ((0, surplus),) + ((0, 0),) * (array.ndim - 1))
    return _reshard(array, mesh, PartitionSpec(axis))


def trim_rows(array: Array, mesh: Mesh, *sizes: int) -> Array:
    """Drops what `split_rows` added to the leading dimensions.

    Args:
      array: whose leading dimensions may be too long.
      mesh: the devices.
      *sizes: what they should be.

    Returns:
      The array; whole on every device if anything had to be dropped.
    """
    if array.shape[: len(sizes)] == sizes:
        return array
    return _reshard(array, mesh, PartitionSpec())[tuple(slice(size) for size in sizes)]


def _reshard(array: Array, mesh: Mesh, spec: PartitionSpec) -> Array:
    """Meets the rule that over explicit mesh axes every array's sharding is spelled out."""
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if AxisType.Explicit not in types.values():
        return array
    explicit = (axis if types.get(axis) == AxisType.Explicit else None for axis in spec)
    return jax.reshard(array, NamedSharding(mesh, PartitionSpec(*explicit)))
