"""Reads PyTorch's checkpoints into NumPy, without PyTorch and without running their code.

Since 2020 a checkpoint is a zip file: data.pkl holds the state dict and data/KEY the raw data of
every storage. Before, it held one after the other: the pickles of a magic number, a protocol
version, system facts, the state dict, and the list of storage keys; then for every key the number
of elements (int64) and the raw data. Unpickling can run any code, so only the few names a state
dict needs are admitted.
"""

import collections
import functools
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from asif_jax.encoders.weights.tensors import Tensors

_MAGIC = 0x1950A86A20F9469CFC6C

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


# A RuntimeError is zipfile's for an encrypted entry or an unknown compression.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError)


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


def _rebuild_parameter(view, *_) -> _View:
    return view


class _Unpickler(pickle.Unpickler):
    """Admits ordered dictionaries, storages and tensors; nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no state dict needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, size, *_ = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError(f"unknown persistent object {kind!r}")
        return _Storage(key, storage_type.dtype, size)


def read_state_dict(path: Path) -> Tensors:
    """Reads a state dict saved by `torch.save`, in either format.

    Args:
      path: a .pth or .bin file.

    Returns:
      Parameter name -> array, each read from the file when asked for.

    Raises:
      ValueError: the file is of neither format, is cut short, or asks for anything but tensors.
    """
    try:
        with path.open("rb") as file:
            read = _read_zip if zipfile.is_zipfile(file) else _read_stream
            file.seek(0)
            views, offsets = read(file)
        for view in views.values():
            _check_window(view)
    except (pickle.UnpicklingError, EOFError, struct.error, *_ZIP_ERRORS, _Malformed) as error:
        raise ValueError(f"{path} is not a usable checkpoint: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a usable checkpoint: {error!r}") from error
    return Tensors(
        {
            name: functools.partial(_read_window, path, offsets[view.storage.key], view)
            for name, view in views.items()
        }
    )


class _Malformed(Exception):
    pass


def _read_zip(file: BinaryIO) -> tuple[dict[str, _View], dict[str, int]]:
    """The views, and where in the file each storage begins."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        root = next((name[:-8] for name in entries if name.endswith("data.pkl")), None)
        if root is None:
            raise _Malformed("it is a zip file without data.pkl")
        if (order := f"{root}byteorder") in entries and archive.read(order) != b"little":
            raise _Malformed("it was written on a big-endian machine")
        with archive.open(f"{root}data.pkl") as pickled:
            views = _checked_views(_Unpickler(pickled).load())
        storages = {view.storage.key: view.storage for view in views.values()}
        offsets = {
            key: _locate_entry(file, entries[f"{root}data/{key}"], storage)
            for key, storage in storages.items()
        }
    return views, offsets


def _locate_entry(file: BinaryIO, entry: zipfile.ZipInfo, storage: _Storage) -> int:
    stored = entry.compress_type == zipfile.ZIP_STORED
    if not stored or entry.file_size < storage.size * storage.dtype.itemsize:
        raise _Malformed(f"storage {storage.key} is compressed or cut short")
    file.seek(entry.header_offset)
    signature, name, extra = struct.unpack("<4s22xHH", file.read(30))
    if signature != b"PK\x03\x04":
        raise _Malformed(f"storage {storage.key} is not where the archive says")
    return entry.header_offset + 30 + name + extra


def _read_stream(file: BinaryIO) -> tuple[dict[str, _View], dict[str, int]]:
    """The views, and where in the file each storage begins."""
    if _Unpickler(file).load() != _MAGIC:
        raise _Malformed("it does not begin as a PyTorch file")
    _Unpickler(file).load()
    if not _Unpickler(file).load()["little_endian"]:
        raise _Malformed("it was written on a big-endian machine")
    views = _checked_views(_Unpickler(file).load())
    keys = _Unpickler(file).load()
    storages = {view.storage.key: view.storage for view in views.values()}
    position = file.tell()
    end = file.seek(0, 2)
    offsets = {}
    for key in keys:
        file.seek(position)
        (size,) = struct.unpack("<q", file.read(8))
        offsets[key] = position + 8
        position += 8 + size * storages[key].dtype.itemsize
        if size != storages[key].size or position > end:
            raise _Malformed(f"it is cut short in storage {key}")
    return views, offsets


def _checked_views(state: Any) -> dict[str, _View]:
    if not isinstance(state, dict) or not all(isinstance(v, _View) for v in state.values()):
        raise _Malformed("it holds something other than a state dict")
    return state


def _reach(view: _View) -> int:
    """How many elements of its storage a view spans, from its offset on."""
    spans = ((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    return 0 if 0 in view.shape else 1 + sum(spans)


def _check_window(view: _View) -> None:
    negative = min((view.offset, *view.strides, *view.shape)) < 0
    if negative or view.offset + _reach(view) > view.storage.size:
        raise _Malformed(f"a tensor of shape {view.shape} reaches outside its storage")


def _read_window(path: Path, start: int, view: _View) -> np.ndarray:
    dtype = view.storage.dtype
    offset = start + view.offset * dtype.itemsize
    data = np.fromfile(path, dtype, count=_reach(view), offset=offset)
    if len(data) != _reach(view):
        raise ValueError(f"{path} was cut short after it was opened")
    strides = [stride * dtype.itemsize for stride in view.strides]
    return np.asarray(np.lib.stride_tricks.as_strided(data, view.shape, strides), order="C")
