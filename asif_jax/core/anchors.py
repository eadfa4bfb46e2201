"""The model as a pytree: the coupled embeddings of its pairs, and which of them are live.

ASIF, section 3: nothing is trained, so a model is its pairs, and editing the pairs is updating the
model. Capacity is fixed, hence every edit is a pure function of fixed shape that compiles once.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from asif_jax.core.cosine import normalize
from asif_jax.core.nearest import DEFAULT_MEMORY
from asif_jax.core.projection import RelativeRepresentation, project


class Anchors(NamedTuple):
    """Image-text pairs (or pairs, triples, ... of any modalities) in slots of fixed capacity.

    Attributes:
      embeddings: modality name -> [capacity, d] float32 or bfloat16 unit vectors, or
        [capacity, captions, d] where zero vectors fill up the shorter lists; row i of every
        modality belongs to pair i.
      live: [capacity] bool, false where a slot is free. Its row then takes part in no score.
    """

    embeddings: Mapping[str, Array]
    live: Array

    @property
    def capacity(self) -> int:
        """The number of slots n, free ones included."""
        return self.live.shape[-1]


def create(
    embeddings: Mapping[str, ArrayLike],
    *,
    capacity: int | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Anchors:
    """Builds a model from the embeddings of its pairs. Runs on the host: it checks the values.

    Args:
      embeddings: modality name -> [n, d] real and finite, or [n, captions, d]; row i of every
        modality is pair i.
      capacity: slots to hold, at least n; the surplus is free for `insert`. By default n.
      dtype: float32, or bfloat16 for half the memory.

    Returns:
      Anchors with the pairs in slots 0..n-1.

    Raises:
      ValueError: no modality, no pair, differing numbers of pairs, non-finite values, or too small
        a capacity.

    Example:
      >>> create({"image": [[3.0, 4.0]], "text": [[2.0]]}, capacity=2).live.tolist()
      [True, False]
    """
    arrays = {modality: np.asarray(array) for modality, array in embeddings.items()}
    count = check_pairs({modality: array.shape for modality, array in arrays.items()})
    for modality, array in arrays.items():
        check_finite(array, name=f"{modality} embeddings")
    units = {modality: normalize(array).astype(dtype) for modality, array in arrays.items()}
    full = Anchors(units, jnp.ones([count], bool))
    return full if capacity is None else grow(full, capacity=capacity)


def as_anchors(pairs: "Anchors | Mapping[str, ArrayLike]") -> Anchors:
    """Pairs of either form as a model without free slots. Pure: no value is checked.

    Args:
      pairs: a model, or modality name -> [n, d] or [n, captions, d] real; row i of every modality
        is pair i, and zero vectors fill up the shorter lists of captions.

    Returns:
      Anchors of unit vectors; bfloat16 stays bfloat16, all else becomes float32.

    Raises:
      ValueError: no modality, no pair, or differing numbers of pairs.

    Example:
      >>> as_anchors({"image": [[3.0, 4.0]]}).embeddings["image"].round(1).tolist()
      [[0.6000000238418579, 0.800000011920929]]
    """
    if isinstance(pairs, Anchors):
        return pairs
    arrays = {modality: jnp.asarray(array) for modality, array in pairs.items()}
    count = check_pairs({modality: array.shape for modality, array in arrays.items()})
    units = {
        m: normalize(a).astype(jnp.bfloat16 if a.dtype == jnp.bfloat16 else jnp.float32)
        for m, a in arrays.items()
    }
    return Anchors(units, jnp.ones([count], bool))


def check_pairs(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Refuses embeddings that cannot be those of one set of pairs.

    Args:
      shapes: modality name -> shape of its embeddings.

    Returns:
      The number of pairs.

    Raises:
      ValueError: no modality, no pair, or differing numbers of pairs.

    Example:
      >>> check_pairs({"image": (5, 3), "text": (5, 2)})
      5
    """
    if not shapes or any(len(shape) not in (2, 3) for shape in shapes.values()):
        raise ValueError(
            f"each modality must map to an [n, d] or [n, captions, d] array: got {shapes}"
        )
    counts = {shape[0] for shape in shapes.values()}
    if len(counts) > 1:
        raise ValueError(f"every modality must hold the same number of pairs: got {shapes}")
    if counts == {0}:
        raise ValueError(f"a model needs at least one pair: got {shapes}")
    return counts.pop()


def check_finite(array: np.ndarray, *, name: str, first: int = 0) -> None:
    """Refuses NaN and infinity where arrays enter from outside.

    Args:
      array: [n, ...] real, on the host.
      name: what the array is, for the message.
      first: what to call its first row.

    Raises:
      ValueError: some row is not finite; names the first and counts them.

    Example:
      >>> check_finite(np.zeros([2, 3]), name="image embeddings")
    """
    bad = np.flatnonzero(~np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
    if bad.size:
        raise ValueError(
            f"{name} {array.shape} hold NaN or infinity in {bad.size} of {len(array)} rows, "
            f"the first being row {first + bad[0]}"
        )


def grow(anchors: Anchors, *, capacity: int) -> Anchors:
    """Adds free slots. The one edit that changes shapes, so what uses the model compiles anew.

    Args:
      anchors: a model.
      capacity: its new number of slots, at least the present one; static.

    Returns:
      The same pairs in the same slots, followed by free ones.

    Raises:
      ValueError: capacity is smaller than the present one.

    Example:
      >>> grow(create({"image": [[1.0]]}), capacity=3).live.tolist()
      [True, False, False]
    """
    extra = capacity - anchors.capacity
    if extra < 0:
        raise ValueError(f"cannot grow {anchors.capacity} slots to {capacity}")
    embeddings = {
        m: jnp.pad(a, ((0, extra),) + ((0, 0),) * (a.ndim - 1))
        for m, a in anchors.embeddings.items()
    }
    return Anchors(embeddings, jnp.pad(anchors.live, (0, extra)))


@jax.jit
def insert(anchors: Anchors, embeddings: Mapping[str, ArrayLike]) -> tuple[Anchors, Array]:
    """Puts new pairs into the lowest free slots.

    Args:
      anchors: a model.
      embeddings: modality name -> [b, d] real, with the model's modalities and dimensions.

    Returns:
      The new model, and the slot of each pair, [b] int32. A pair that finds no free slot, or holds
      a non-finite value, is left out, and its slot reads `anchors.capacity`.

    Raises:
      ValueError: modalities or shapes that do not fit the model.

    Example:
      >>> model = create({"image": [[1.0]], "text": [[1.0]]}, capacity=2)
      >>> insert(model, {"image": [[2.0]], "text": [[3.0]]})[1].tolist()
      [1]
    """
    units, valid = _checked_rows(anchors, embeddings)
    live = _gathered(anchors.live)
    (free,) = jnp.nonzero(~live, size=valid.shape[0], fill_value=anchors.capacity)
    # The j-th valid pair takes the j-th free slot.
    order = jnp.cumsum(valid) - 1
    slots = jnp.where(valid, free[order], anchors.capacity).astype(jnp.int32)
    return _write(anchors, slots, units), slots


@jax.jit
def replace(anchors: Anchors, slots: ArrayLike, embeddings: Mapping[str, ArrayLike]) -> Anchors:
    """Overwrites the pairs in the given slots, which become live.

    Args:
      anchors: a model.
      slots: [b] int, distinct; those outside 0..capacity-1 are ignored.
      embeddings: modality name -> [b, d] real. A pair with a non-finite value leaves its slot as
        it was.

    Returns:
      The new model.

    Raises:
      ValueError: modalities or shapes that do not fit the model.

    Example:
      >>> model = create({"image": [[1.0, 0.0]]})
      >>> replace(model, [0], {"image": [[0.0, 5.0]]}).embeddings["image"].tolist()
      [[0.0, 1.0]]
    """
    units, valid = _checked_rows(anchors, embeddings)
    slots = jnp.asarray(slots)
    if slots.shape != valid.shape:
        raise ValueError(f"slots {slots.shape} must name one slot for each of {valid.shape} pairs")
    return _write(anchors, jnp.where(valid, slots, anchors.capacity), units)


@jax.jit
def remove(anchors: Anchors, slots: ArrayLike) -> Anchors:
    """Frees slots: their pairs take part in no score any more.

    Args:
      anchors: a model.
      slots: [b] int; those outside 0..capacity-1 are ignored.

    Returns:
      The new model. The freed rows keep their bytes until another pair is written there.

    Example:
      >>> remove(create({"image": [[1.0], [2.0]]}), [0]).live.tolist()
      [False, True]
    """
    slots = _ignore_outside(jnp.asarray(slots), anchors.capacity)
    return anchors._replace(live=_set(anchors.live, slots, False))


@functools.partial(jax.jit, static_argnames=("modality", "k", "signed", "memory"))
def represent(
    embeddings: ArrayLike,
    anchors: Anchors,
    *,
    modality: str,
    k: int = 800,
    p: ArrayLike = 8.0,
    signed: bool = False,
    memory: int = DEFAULT_MEMORY,
) -> RelativeRepresentation:
    """Relative representation of embeddings with respect to a model: `project` on its live pairs.

    Args:
      embeddings: [..., d] real, of one modality.
      anchors: a model.
      modality: whose embeddings these are; static.
      k: how many similarities are kept, at most the capacity; static.
      p: the exponent, a real scalar.
      signed: keep negative similarities (see `project`).
      memory: bytes that may be used beside the arguments and the result; static.

    Returns:
      [..., k] relative representations.

    Raises:
      ValueError: an unknown modality, or shapes that do not fit.

    Example:
      >>> model = create({"image": [[1.0, 0.0], [0.0, 1.0]]})
      >>> represent([0.1, 0.9], model, modality="image", k=1).indices.tolist()
      [1]
    """
    return project(
        embeddings,
        embeddings_of(anchors, modality),
        k=k,
        p=p,
        live=anchors.live,
        signed=signed,
        normalized=True,
        memory=memory,
    )


def embeddings_of(anchors: Anchors, modality: str) -> Array:
    """The embeddings of all slots in one modality.

    Args:
      anchors: a model.
      modality: its name.

    Returns:
      [capacity, d] float32 or bfloat16 unit vectors.

    Raises:
      ValueError: the model has no such modality.

    Example:
      >>> embeddings_of(create({"image": [[0.0, 2.0]]}), "image").tolist()
      [[0.0, 1.0]]
    """
    if modality not in anchors.embeddings:
        raise ValueError(f"no modality {modality!r} among {sorted(anchors.embeddings)}")
    return anchors.embeddings[modality]


def _checked_rows(
    anchors: Anchors, embeddings: Mapping[str, ArrayLike]
) -> tuple[dict[str, Array], Array]:
    """Unit rows for each modality and which rows are finite in all of them, [b] bool."""
    arrays = {modality: jnp.asarray(array) for modality, array in embeddings.items()}
    expected = {m: ("b", *array.shape[1:]) for m, array in anchors.embeddings.items()}
    shapes = {modality: array.shape for modality, array in arrays.items()}
    fits = shapes.keys() == expected.keys() and all(
        len(shape) == len(expected[m]) and shape[1:] == expected[m][1:]
        for m, shape in shapes.items()
    )
    if not fits or len({shape[0] for shape in shapes.values()}) != 1:
        raise ValueError(f"the model takes {expected}: got {shapes}")
    finite = [jnp.isfinite(a).all(axis=range(1, a.ndim)) for a in arrays.values()]
    units = {m: normalize(array).astype(anchors.embeddings[m].dtype) for m, array in arrays.items()}
    return units, functools.reduce(jnp.logical_and, finite)


def _write(anchors: Anchors, slots: Array, units: Mapping[str, Array]) -> Anchors:
    slots = _ignore_outside(slots, anchors.capacity)
    embeddings = {m: _set(array, slots, units[m]) for m, array in anchors.embeddings.items()}
    return Anchors(embeddings, _set(anchors.live, slots, True))


def _set(array: Array, slots: Array, values: ArrayLike) -> Array:
    # Over explicit mesh axes JAX asks how the result is split: as it was.
    return array.at[slots].set(values, mode="drop", out_sharding=jax.typeof(array).sharding)


def _gathered(array: Array) -> Array:
    """Over explicit mesh axes, the whole array on every device; JAX does so itself elsewhere."""
    sharding = jax.typeof(array).sharding
    if all(axis is None for axis in sharding.spec):
        return array
    return jax.reshard(array, sharding.update(spec=PartitionSpec()))


def _ignore_outside(slots: Array, capacity: int) -> Array:
    # JAX, like NumPy, would take a negative index for one from the end.
    return jnp.where(slots < 0, capacity, slots)
