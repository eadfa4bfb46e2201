"""Published weights: reading them, checking them, putting them into modules."""

import fnmatch
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np
import safetensors
from flax import nnx

from asif_jax.encoders.weights.tensors import Tensors
from asif_jax.encoders.weights.torch_pickle import read_state_dict

_Path = tuple[Any, ...]
M = TypeVar("M", bound=nnx.Module)

# The names a checkpoint's weights go by, the preferred first; an index lists several files.
_WHOLE = ("model.safetensors", "pytorch_model.bin")


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files that hold a checkpoint's weights.

    Args:
      path: a file, or a directory with model.safetensors, with model.safetensors.index.json and
        the files it lists, or with pytorch_model.bin, whole or indexed likewise.

    Returns:
      The files, all present.

    Raises:
      ValueError: none of these, or a listed file is missing; names it.
    """
    if path.is_file():
        return (path,)
    for name in _WHOLE:
        if (path / name).is_file():
            return (path / name,)
        if (index := path / f"{name}.index.json").is_file():
            return _indexed_files(index)
    if path.is_dir():
        raise ValueError(f"{path} holds no weights: neither {' nor '.join(_WHOLE)}, nor an index")
    raise ValueError(f"{path} is missing")


def _indexed_files(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{index} is no index of weights: {error!r}") from error
    for name in names:
        if name != Path(name).name or not (index.parent / name).is_file():
            raise ValueError(f"{index.parent / name} is missing, which {index.name} lists")
    return tuple(index.parent / name for name in names)


def read_tensors(path: Path) -> Tensors:
    """Reads the tensors of a checkpoint.

    Args:
      path: a directory as in `weight_files`; or a .safetensors, .bin or .pth file. If a .pth file's
        name ends in a hexadecimal hash, as PyTorch names published checkpoints, its content must
        have that sha256.

    Returns:
      Tensor name -> array, each read from its file when asked for.

    Raises:
      ValueError: no such file, or a damaged one.
    """
    readers: dict[str, Callable[[], np.ndarray]] = {}
    for file in weight_files(path):
        readers |= _open_file(file).readers
    return Tensors(readers)


def _open_file(path: Path) -> Tensors:
    if path.suffix != ".safetensors":
        _check_hash(path)
        return read_state_dict(path)
    try:
        with safetensors.safe_open(path, "np") as file:
            names = list(file.keys())
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error
    return Tensors({name: functools.partial(_read_safetensor, path, name) for name in names})


def _read_safetensor(path: Path, name: str) -> np.ndarray:
    # Opening anew for every tensor unmaps what was read before, which would count as memory.
    with safetensors.safe_open(path, "np") as file:
        return file.get_tensor(name)


def hash_files(*paths: Path) -> str:
    """First 16 hexadecimal digits of the sha256 of files, one after the other.

    Args:
      *paths: the files.

    Returns:
      The digits.
    """
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:16]


def _check_hash(path: Path) -> None:
    named = re.search(r"-([0-9a-f]{8,16})\.pth$", path.name)
    if named and not hash_files(path).startswith(named[1]):
        raise ValueError(f"{path} is cut short or damaged: its sha256 does not start {named[1]}")


def with_weights(
    build: Callable[[nnx.Rngs], M],
    tensors: Mapping[str, np.ndarray],
    checkpoint_name: Callable[[_Path], str],
    *,
    source: Path,
    unused: Sequence[str] | None = None,
) -> M:
    """Builds a module around published tensors, initializing nothing.

    Tensors are read and converted one by one, so that the peak of memory is the module and one
    tensor.

    Args:
      build: makes the module; only its shapes and types are computed.
      tensors: checkpoint name -> array, linear kernels as [out, in] and convolutions as
        [out, in, height, width], as PyTorch keeps them.
      checkpoint_name: path of a parameter in the module -> its name in the checkpoint.
      source: the file or directory, for messages.
      unused: patterns, as of file names, of the tensors that a checkpoint may hold beyond those of
        the module, such as "classifier.*"; any other is an error. By default anything may.

    Returns:
      The module.

    Raises:
      ValueError: a tensor is missing, unexpected or of another shape; names it.
    """
    graph, abstract = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    flat = nnx.to_flat_state(abstract)
    names = {path: checkpoint_name(path) for path, _ in flat}
    _check_names(set(names.values()), tensors, source=source, unused=unused)

    def assign(path: _Path, leaf: nnx.Variable) -> nnx.Variable:
        array = tensors[names[path]]
        array = _from_torch(array) if path[-1] == "kernel" else array
        expected = leaf.get_value()
        if array.shape != expected.shape:
            raise ValueError(
                f"{source}: tensor {names[path]} gives {path} the shape {array.shape}, "
                f"which should be {expected.shape}"
            )
        return leaf.replace(jax.numpy.asarray(array, expected.dtype))

    values = [(path, assign(path, leaf)) for path, leaf in flat]
    return cast(M, nnx.merge(graph, nnx.from_flat_state(values)))


def _check_names(
    expected: set[str],
    tensors: Mapping[str, np.ndarray],
    *,
    source: Path,
    unused: Sequence[str] | None,
) -> None:
    if missing := sorted(expected - set(tensors)):
        raise ValueError(f"{source} lacks {_listed(missing)}")
    surplus = sorted(
        name
        for name in set(tensors) - expected
        if unused is not None and not any(fnmatch.fnmatchcase(name, each) for each in unused)
    )
    if surplus:
        raise ValueError(f"{source} holds {_listed(surplus)}, which the architecture lacks")


def _listed(names: Sequence[str]) -> str:
    others = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"the tensor{'s' * (len(names) > 1)} {', '.join(names[:3])}{others}"


def published_name(path: _Path, names: Mapping[str, str], *, layer: str) -> str:
    """Name of a parameter in a published checkpoint, by the name of its module or its own.

    Args:
      path: in the module; the parameters of layer i lie under (list, i).
      names: module or lone parameter -> its name in the checkpoint, within a layer if it is in one.
      layer: what the checkpoint calls the list of layers.

    Returns:
      The tensor's name.

    Example:
      >>> published_name(("blocks", 3, "up", "kernel"), {"up": "fc1"}, layer="encoder.layer")
      'encoder.layer.3.fc1.weight'
    """
    *outer, parameter = path
    index = next((str(part) for part in outer if isinstance(part, int)), None)
    prefix = "" if index is None else f"{layer}.{index}."
    if parameter in names:
        return prefix + names[parameter]
    return f"{prefix}{names[outer[-1]]}.{'bias' if parameter == 'bias' else 'weight'}"


def _from_torch(kernel: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out] and [out, in, h, w] -> [h, w, in, out]."""
    return kernel.T if kernel.ndim == 2 else kernel.transpose(2, 3, 1, 0)
