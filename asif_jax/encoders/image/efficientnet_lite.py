"""EfficientNet-Lite: image embeddings from mobile inverted bottlenecks.

Tan and Le, "EfficientNet", ICML 2019, in the Lite variant of its authors: no squeeze-and-excite,
ReLU6, stem and head of fixed width. BatchNorm, frozen, is folded into the convolutions. In bfloat16
only the pointwise convolutions are, where the work is: the others do not bear it.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from asif_jax.encoders.weights.published import published_name, read_tensors, with_weights

FEATURES = 1280
_STEM, _CLASSES = 32, 1000
_BATCH_NORM_EPSILON = 1e-3


@dataclasses.dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Scaling of one variant; resolution in pixels."""

    width: float
    depth: float
    resolution: int


CONFIGS = {
    "efficientnet-lite0": EfficientNetLiteConfig(1.0, 1.0, 224),
    "efficientnet-lite1": EfficientNetLiteConfig(1.0, 1.1, 240),
    "efficientnet-lite2": EfficientNetLiteConfig(1.1, 1.2, 260),
    "efficientnet-lite3": EfficientNetLiteConfig(1.2, 1.4, 280),
    "efficientnet-lite4": EfficientNetLiteConfig(1.4, 1.8, 300),
}


@dataclasses.dataclass(frozen=True)
class _Stage:
    """Blocks of one shape (EfficientNet, table 1)."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


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


class Linear(nnx.Module):
    """A pointwise convolution: its product in `dtype`, the bias and the result float32."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        initializer = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(initializer(rngs.params(), (inputs, outputs), dtype))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, images: Array) -> Array:
        kernel = self.kernel.get_value()
        product = jnp.dot(images.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
        return product + self.bias.get_value()


class Block(nnx.Module):
    """Mobile inverted bottleneck: expand, depthwise, project, and add the input if it fits."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stage: _Stage,
        stride: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        linear = functools.partial(Linear, dtype=dtype, rngs=rngs)
        width = inputs * stage.expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = linear(inputs, width) if stage.expansion > 1 else None
        self.depthwise = Depthwise(width, stage.kernel, stride, rngs=rngs)
        self.project = linear(width, outputs)

    def __call__(self, images: Array) -> Array:
        hidden = images if self.expand is None else jax.nn.relu6(self.expand(images))
        hidden = self.project(jax.nn.relu6(self.depthwise(hidden)))
        return images + hidden if self.residual else hidden


class EfficientNetLite(nnx.Module):
    """Images to pooled features, or to the 1,000 ImageNet classes."""

    def __init__(
        self,
        config: EfficientNetLiteConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.stem = nnx.Conv(3, _STEM, (3, 3), strides=2, padding="SAME", rngs=rngs)
        blocks, inputs = [], _STEM
        for index, stage in enumerate(_STAGES):
            outputs = _scaled_channels(stage.channels, config.width)
            for repeat in range(_repeats(index, config.depth)):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(Block(inputs, outputs, stage, stride, dtype=dtype, rngs=rngs))
                inputs = outputs
        self.blocks = nnx.List(blocks)
        self.head = Linear(inputs, FEATURES, dtype=dtype, rngs=rngs)
        self.classifier = Linear(FEATURES, _CLASSES, dtype=dtype, rngs=rngs)

    def __call__(self, pixels: Array) -> Array:
        """Embeds images.

        Args:
          pixels: [batch, h, w, 3], 0 to 255, any real type.

        Returns:
          [batch, 1280] float32 pooled features, not of unit length.
        """
        images = (jnp.asarray(pixels, jnp.float32) - 127.0) / 128.0
        images = jax.nn.relu6(self.stem(images))
        for block in self.blocks:
            images = block(images)
        return jnp.mean(jax.nn.relu6(self.head(images)), axis=(1, 2))

    def classify(self, pixels: Array) -> Array:
        """Scores the ImageNet classes.

        Args:
          pixels: [batch, h, w, 3], 0 to 255, any real type.

        Returns:
          [batch, 1000] float32 logits, in the order of ImageNet-1k.
        """
        return self.classifier(self(pixels))


def _scaled_channels(channels: int, width: float) -> int:
    """Scaled to the nearest multiple of 8, but not below 90%."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def _repeats(stage: int, depth: float) -> int:
    """Scaled number of blocks; Lite leaves the first and the last stage alone."""
    repeats = _STAGES[stage].repeats
    return repeats if stage in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)


_CHECKPOINT_NAMES = {
    "stem": "_conv_stem",
    "head": "_conv_head",
    "classifier": "_fc",
    "expand": "_expand_conv",
    "depthwise": "_depthwise_conv",
    "project": "_project_conv",
}
# From the path of a parameter in the module to its name among the folded tensors.
checkpoint_name = functools.partial(published_name, names=_CHECKPOINT_NAMES, layer="_blocks")

# The BatchNorm that follows each convolution, in a block and outside.
_BLOCK_NORMS = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
_OUTER_NORMS = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}


def fold_batch_norms(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Multiplies every BatchNorm into the convolution before it.

    Args:
      tensors: the checkpoint's tensors.

    Returns:
      The convolutions with weight and bias, and the classifier. Pointwise convolutions become
      [out, in] matrices.

    Raises:
      KeyError: a BatchNorm's tensor is missing.
    """
    tensors = dict(tensors)
    folded = {name: tensors[name] for name in tensors if name.startswith("_fc.")}
    for name, weight in tensors.items():
        *block, convolution, _ = name.split(".")
        norms = _BLOCK_NORMS if block else _OUTER_NORMS
        if convolution not in norms or weight.ndim != 4:
            continue
        norm = ".".join([*block, norms[convolution]])
        gamma, beta, mean, variance = (
            tensors[f"{norm}.{kind}"] for kind in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
        kernel = weight * scale[:, None, None, None]
        pointwise = weight.shape[2:] == (1, 1)
        folded[name] = kernel[:, :, 0, 0] if pointwise else kernel
        folded[name.removesuffix("weight") + "bias"] = beta - mean * scale
    return folded


def load_efficientnet_lite(
    path: Path, config: EfficientNetLiteConfig, *, dtype: DTypeLike = jnp.float32
) -> EfficientNetLite:
    """Loads an EfficientNet-Lite from a PyTorch checkpoint.

    Args:
      path: the .pth file.
      config: the variant it holds.
      dtype: of the pointwise convolutions, float32 or bfloat16.

    Returns:
      The module with its weights.

    Raises:
      ValueError: the file is damaged, or a tensor is missing or misshaped.
    """
    tensors = read_tensors(path)
    try:
        folded = fold_batch_norms(tensors)
    except KeyError as error:
        raise ValueError(f"{path} lacks the tensor {error.args[0]}") from error
    return with_weights(
        lambda rngs: EfficientNetLite(config, dtype=dtype, rngs=rngs),
        folded,
        checkpoint_name,
        source=path,
    )
