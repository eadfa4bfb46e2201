"""EfficientNet-Lite: image embeddings from mobile inverted bottlenecks.

Tan and Le, "EfficientNet", ICML 2019, in the Lite variant of its authors: no squeeze-and-excite,
ReLU6, stem and head of fixed width. BatchNorm, frozen, is folded into the convolutions. In bfloat16
only the pointwise convolutions are, where the work is: the others lose too much accuracy.
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

from asif_jax.encoders.encoder import Encoder, pure
from asif_jax.encoders.image.processing import squares
from asif_jax.encoders.layers.depthwise import Depthwise
from asif_jax.encoders.weights.published import (
    hash_files,
    published_name,
    read_tensors,
    with_weights,
)

_FEATURES = 1280
_STEM, _CLASSES = 32, 1000
_BATCH_NORM_EPSILON = 1e-3


@dataclasses.dataclass(frozen=True)
class EfficientNetLiteConfig:
    """How one variant scales width and depth, and its resolution in pixels."""

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


class Pointwise(nnx.Module):
    """A pointwise convolution: its product in `dtype`, the bias and the result float32."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        initializer = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(initializer(rngs.params(), (inputs, outputs), dtype))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, images: Array) -> Array:
        kernel = self.kernel.get_value()
        product = jnp.dot(images.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
        return product + self.bias.get_value()


class InvertedBottleneck(nnx.Module):
    """MobileNet's inverted bottleneck: expand, depthwise, project, and add the input if it fits."""

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
        pointwise = functools.partial(Pointwise, dtype=dtype, rngs=rngs)
        width = inputs * stage.expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = pointwise(inputs, width) if stage.expansion > 1 else None
        self.depthwise = Depthwise(width, stage.kernel, stride, rngs=rngs)
        self.project = pointwise(width, outputs)

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
                block = InvertedBottleneck(inputs, outputs, stage, stride, dtype=dtype, rngs=rngs)
                blocks.append(block)
                inputs = outputs
        self.blocks = nnx.List(blocks)
        self.head = Pointwise(inputs, _FEATURES, dtype=dtype, rngs=rngs)
        self.classifier = Pointwise(_FEATURES, _CLASSES, dtype=dtype, rngs=rngs)

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
      dtype: the type of the pointwise convolutions, float32 or bfloat16.

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


def load(
    checkpoint: Path,
    *,
    name: str,
    dtype: DTypeLike = jnp.float32,
    pooling: str | None = None,
    prompt: str | None = None,
) -> Encoder:
    """Loads an image encoder.

    Args:
      checkpoint: the .pth file, whose name begins with that of its variant.
      name: the encoder's name for people.
      dtype: the type of the pointwise convolutions, float32 or bfloat16.
      pooling: must be None, because there is no choice.
      prompt: must be None, because images have no prompt.

    Returns:
      The encoder.

    Raises:
      ValueError: a pooling or prompt; or the file is damaged, or a tensor is missing or misshaped.
    """
    if pooling or prompt:
        raise ValueError(f"{name} is an image encoder, without choice of pooling or prompt")
    variant = next(each for each in CONFIGS if checkpoint.name.startswith(each))
    config = CONFIGS[variant]
    apply, params = pure(load_efficientnet_lite(checkpoint, config, dtype=dtype))
    precision = "" if jnp.dtype(dtype) == jnp.float32 else f" {jnp.dtype(dtype).name}"
    weights = hash_files(checkpoint)
    return Encoder(
        apply,
        params,
        functools.partial(squares, resolution=config.resolution),
        modality="image",
        name=name,
        dimension=_FEATURES,
        identity=f"{variant} {weights} whole image at {config.resolution} px{precision}",
    )
