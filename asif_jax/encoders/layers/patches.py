"""Images cut into patches, and the positions of patches at any resolution.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, section 3.1.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike


class Patches(nnx.Module):
    """Cuts images into squares and maps each linearly to a token."""

    def __init__(
        self, size: int, width: int, *, bias: bool = True, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        shape = (size, size, 3, width)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape, dtype))
        self.bias = nnx.Param(jnp.zeros(width, dtype)) if bias else None

    def __call__(self, images: Array) -> Array:
        """Cuts and maps; what is left of a patch at the right and lower edge is dropped.

        Args:
          images: [batch, height, width, 3] float.

        Returns:
          [batch, rows, columns, tokens' width].
        """
        kernel = self.kernel.get_value()
        size = kernel.shape[0]
        rows, columns = images.shape[1] // size, images.shape[2] // size
        images = images[:, : rows * size, : columns * size].astype(kernel.dtype)
        # A product of matrices, which is faster than a convolution of the same numbers.
        patches = images.reshape(-1, rows, size, columns, size, 3).swapaxes(2, 3)
        patches = patches.reshape(-1, rows, columns, size * size * 3)
        tokens = patches @ kernel.reshape(size * size * 3, -1)
        return tokens if self.bias is None else tokens + self.bias.get_value()


def patch_count(image_size: int, patch_size: int) -> int:
    """How many patches an image has, which is how many positions a model was trained with.

    Args:
      image_size: side of the square image, in pixels.
      patch_size: side of the square patch.

    Returns:
      Their number.

    Raises:
      ValueError: a size is no number; older configurations may give height and width.

    Example:
      >>> patch_count(224, 16)
      196
    """
    for name, size in (("image_size", image_size), ("patch_size", patch_size)):
        if not isinstance(size, int):
            raise ValueError(f"unsupported {name} {size!r}: only squares, by one number")
    return (image_size // patch_size) ** 2


def resize_positions(positions: Array, grid: Sequence[int], *, antialias: bool = False) -> Array:
    """Position embeddings of a square grid, resampled bicubically to another grid.

    Args:
      positions: [side * side, width], row by row.
      grid: rows and columns wanted.
      antialias: filter where the grid shrinks.

    Returns:
      [rows, columns, width].

    Raises:
      ValueError: the number of positions is no square.
    """
    count, width = positions.shape
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(f"{count} positions form no square")
    square = positions.reshape(side, side, width)
    if tuple(grid) == (side, side):
        return square
    rows, columns = (cubic_resampling(side, size, antialias=antialias) for size in grid)
    return jnp.einsum("rp,cq,pqd->rcd", rows, columns, square).astype(positions.dtype)


def cubic_resampling(inputs: int, outputs: int, *, antialias: bool) -> np.ndarray:
    """The matrix that resamples a row of values bicubically, as PyTorch's `interpolate` does.

    Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, equation 4, with
    a = -3/4 and the outermost values repeated; or, with antialiasing, a = -1/2 and weights that are
    normalized over the values that exist.

    Args:
      inputs: number of values.
      outputs: number wanted.
      antialias: widen the filter where values become fewer.

    Returns:
      [outputs, inputs] float32.

    Example:
      >>> cubic_resampling(2, 4, antialias=False).sum(axis=1).tolist()
      [1.0, 1.0, 1.0, 1.0]
    """
    scale = inputs / outputs
    centers = ((np.arange(outputs) + 0.5) * scale - 0.5)[:, None]
    if antialias:
        weights = _cubic((np.arange(inputs) - centers) / max(scale, 1.0), a=-0.5)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    taps = np.floor(centers).astype(int) + np.arange(-1, 3)
    matrix = np.zeros([outputs, inputs])
    row = np.arange(outputs)[:, None]
    np.add.at(matrix, (row, np.clip(taps, 0, inputs - 1)), _cubic(taps - centers, a=-0.75))
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray, *, a: float) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


# How the tokens of an image may become one embedding, the default first.
PATCH_POOLINGS = ("cls", "mean")


def pool_patches(tokens: Array, pooling: str, *, others: int) -> Array:
    """One embedding of an image's tokens.

    Args:
      tokens: [batch, length, width].
      pooling: "cls", the first token, or "mean", of the patches' tokens.
      others: how many tokens come before the patches' own.

    Returns:
      [batch, width] float32.

    Raises:
      ValueError: another pooling.
    """
    tokens = tokens.astype(jnp.float32)
    if pooling == "cls":
        return tokens[:, 0]
    if pooling == "mean":
        return tokens[:, others:].mean(axis=1)
    raise ValueError(f"unknown pooling {pooling!r} of images: only cls and mean")
