"""Published weights: reading them, checking them, putting them into modules."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from asif_jax.encoders.torch_pickle import read_state_dict

_Path = tuple[Any, ...]
M = TypeVar("M", bound=nnx.Module)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a .safetensors or an old-style .pth file.

    Args:
      path: the file. If a .pth file's name ends in a hexadecimal hash, as PyTorch names published
        checkpoints, its content must have that sha256.

    Returns:
      Tensor name -> array.

    Raises:
      ValueError: no such file, or a damaged one.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    if path.suffix != ".safetensors":
        _check_hash(path)
        return read_state_dict(path)
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error


def fingerprint(path: Path) -> str:
    """First 16 hexadecimal digits of a file's sha256.

    Args:
      path: the file.

    Returns:
      The digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _check_hash(path: Path) -> None:
    named = re.search(r"-([0-9a-f]{8,16})\.pth$", path.name)
    if named and not fingerprint(path).startswith(named[1]):
        raise ValueError(f"{path} is cut short or damaged: its sha256 does not start {named[1]}")


def with_weights(
    build: Callable[[nnx.Rngs], M],
    tensors: Mapping[str, np.ndarray],
    checkpoint_name: Callable[[_Path], str],
    *,
    source: Path,
) -> M:
    """Builds a module around published tensors, initializing nothing.

    Args:
      build: makes the module; only its shapes are computed.
      tensors: checkpoint name -> array, linear kernels as [out, in] and convolutions as
        [out, in, height, width], as PyTorch keeps them.
      checkpoint_name: path of a parameter in the module -> its name in the checkpoint.
      source: the file, for messages.

    Returns:
      The module.

    Raises:
      ValueError: a tensor is missing or of another shape; names it.
    """
    graph, abstract = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def assign(path: _Path, leaf: nnx.Variable) -> nnx.Variable:
        name = checkpoint_name(path)
        if name not in tensors:
            raise ValueError(f"{source} lacks the tensor {name}")
        array = _from_torch(tensors[name]) if path[-1] == "kernel" else tensors[name]
        expected = leaf.get_value()
        if array.shape != expected.shape:
            raise ValueError(
                f"{source}: tensor {name} gives {path} the shape {array.shape}, "
                f"which should be {expected.shape}"
            )
        return leaf.replace(jax.numpy.asarray(array, expected.dtype))

    flat = [(path, assign(path, leaf)) for path, leaf in nnx.to_flat_state(abstract)]
    return cast(M, nnx.merge(graph, nnx.from_flat_state(flat)))


def _from_torch(kernel: np.ndarray) -> np.ndarray:
    """[out, in] -> [in, out] and [out, in, h, w] -> [h, w, in, out]."""
    return kernel.T if kernel.ndim == 2 else kernel.transpose(2, 3, 1, 0)
