"""Reads PyTorch's old checkpoint format into NumPy, without PyTorch and without running its code.

A file holds, one after the other: the pickles of a magic number, a protocol version, system facts,
the state dict, and the list of storage keys; then for every key the number of elements (int64) and
the raw data. Unpickling can run any code, so only the few names a state dict needs are admitted.
"""

import collections
import pickle
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _View(NamedTuple):
    """A tensor before its storage is read: a strided window into it."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    """Admits ordered dictionaries, storages and tensors; nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no state dict needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, size, *_ = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"unknown persistent object {kind!r}")
        return _Storage(key, storage_type.dtype, size)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict saved by `torch.save` in the format that preceded zip files.

    Args:
      path: a .pth file.

    Returns:
      Parameter name -> array.

    Raises:
      ValueError: the file is not of this format, is cut short, or asks for anything but tensors.
    """
    with path.open("rb") as file:
        try:
            return _read(file)
        except (pickle.UnpicklingError, EOFError, struct.error, _Malformed) as error:
            raise ValueError(f"{path} is not a usable checkpoint: {error}") from error
        except (AttributeError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a usable checkpoint: {error!r}") from error


class _Malformed(Exception):
    pass


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    if _Unpickler(file).load() != _MAGIC:
        raise _Malformed("it does not begin as a PyTorch file")
    _Unpickler(file).load()
    if not _Unpickler(file).load()["little_endian"]:
        raise _Malformed("it was written on a big-endian machine")
    views = _Unpickler(file).load()
    keys = _Unpickler(file).load()
    if not isinstance(views, dict) or not all(isinstance(v, _View) for v in views.values()):
        raise _Malformed("it holds something other than a state dict")
    storages = {view.storage.key: view.storage for view in views.values()}
    data = {key: _read_storage(file, storages[key]) for key in keys}
    return {name: _window(data[view.storage.key], view) for name, view in views.items()}


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    (size,) = struct.unpack("<q", file.read(8))
    content = file.read(size * storage.dtype.itemsize) if size == storage.size else b""
    if len(content) != storage.size * storage.dtype.itemsize:
        raise _Malformed(f"it is cut short in storage {storage.key}")
    return np.frombuffer(content, storage.dtype)


def _window(data: np.ndarray, view: _View) -> np.ndarray:
    reach = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    if min((view.offset, *view.strides, *view.shape)) < 0 or (
        0 not in view.shape and reach >= len(data)
    ):
        raise _Malformed(f"a tensor of shape {view.shape} reaches outside its storage")
    strides = [s * data.itemsize for s in view.strides]
    window = np.lib.stride_tricks.as_strided(data[view.offset :], view.shape, strides)
    return np.array(window)
