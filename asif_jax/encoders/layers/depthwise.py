"""Depthwise convolutions: each channel is convolved by itself.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
2017, section 3.1.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


class Depthwise(nnx.Module):
    """A convolution of every channel by itself, with TensorFlow's "SAME" padding."""

    def __init__(self, channels: int, kernel: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        shape = (kernel, kernel, 1, channels)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, images: Array) -> Array:
        # XLA's CPU backend has no fast grouped convolution; accelerators do.
        convolved = jax.lax.platform_dependent(
            images,
            self.kernel.get_value(),
            cpu=lambda x, kernel: depthwise_by_shifts(x, kernel, stride=self.stride),
            default=lambda x, kernel: depthwise_by_groups(x, kernel, stride=self.stride),
        )
        return convolved + self.bias.get_value()


def depthwise_by_groups(images: Array, kernel: Array, *, stride: int) -> Array:
    """Depthwise convolution as the compiler's grouped convolution.

    Args:
      images: [batch, h, w, channels].
      kernel: [k, k, 1, channels].
      stride: in both directions.

    Returns:
      [batch, ceil(h / stride), ceil(w / stride), channels].
    """
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=images.shape[-1],
    )


def depthwise_by_shifts(images: Array, kernel: Array, *, stride: int) -> Array:
    """The same as a sum of k x k shifted and scaled copies.

    Args:
      images: [batch, h, w, channels].
      kernel: [k, k, 1, channels].
      stride: in both directions.

    Returns:
      [batch, ceil(h / stride), ceil(w / stride), channels].
    """
    size = kernel.shape[0]
    outputs = [-(-side // stride) for side in images.shape[1:3]]
    missing = [
        max((count - 1) * stride + size - side, 0)
        for count, side in zip(outputs, images.shape[1:3], strict=True)
    ]
    padding = [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)]
    padded = jnp.pad(images, padding)
    result = jnp.zeros([], images.dtype)
    for row in range(size):
        for column in range(size):
            rows = slice(row, row + (outputs[0] - 1) * stride + 1, stride)
            columns = slice(column, column + (outputs[1] - 1) * stride + 1, stride)
            result = result + padded[:, rows, columns] * kernel[row, column, 0]
    return result
