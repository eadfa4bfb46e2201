"""EfficientNet-Lite in PyTorch, around the weights of ours: convolutions with BatchNorms folded."""

import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx

from asif_jax.encoders.image.efficientnet_lite import CONFIGS, EfficientNetLite, fold_batch_norms
from asif_jax.encoders.packages import installed_weights
from asif_jax.encoders.weights.published import read_tensors


class SameConv(torch.nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding."""

    def forward(self, x):
        missing = [
            max((-(-side // s) - 1) * s + k - side, 0)
            for side, s, k in zip(x.shape[2:], self.stride, self.kernel_size, strict=True)
        ]
        vertical, horizontal = ((m // 2, m - m // 2) for m in missing)
        return super().forward(F.pad(x, (*horizontal, *vertical)))


def convolution(tensors, name, *, stride=1, groups=1):
    weight = torch.from_numpy(np.array(tensors[f"{name}.weight"]))
    weight = weight if weight.ndim == 4 else weight[:, :, None, None]
    outputs, inputs, size, _ = weight.shape
    conv = SameConv(inputs * groups, outputs, size, stride=stride, groups=groups)
    conv.weight.data, conv.bias.data = weight, torch.from_numpy(np.array(tensors[f"{name}.bias"]))
    return conv


class Block(torch.nn.Module):
    """A mobile inverted bottleneck."""

    def __init__(self, tensors, name, *, stride):
        super().__init__()
        expands = f"{name}._expand_conv.weight" in tensors
        self.expand = convolution(tensors, f"{name}._expand_conv") if expands else None
        groups = len(tensors[f"{name}._depthwise_conv.weight"])
        depthwise = f"{name}._depthwise_conv"
        self.depthwise = convolution(tensors, depthwise, stride=stride, groups=groups)
        self.project = convolution(tensors, f"{name}._project_conv")

    def forward(self, x):
        hidden = x if self.expand is None else F.relu6(self.expand(x))
        hidden = self.project(F.relu6(self.depthwise(hidden)))
        return x + hidden if x.shape == hidden.shape else hidden


class TorchEfficientNetLite(torch.nn.Module):
    """[batch, 3, h, w] normalized pixels to [batch, 1280] features."""

    def __init__(self, name):
        super().__init__()
        tensors = fold_batch_norms(read_tensors(installed_weights(name)))
        ours = nnx.eval_shape(lambda: EfficientNetLite(CONFIGS[name], rngs=nnx.Rngs(0)))
        strides = [block.depthwise.stride for block in ours.blocks]
        self.stem = convolution(tensors, "_conv_stem", stride=2)
        self.blocks = torch.nn.Sequential(
            *(Block(tensors, f"_blocks.{i}", stride=stride) for i, stride in enumerate(strides))
        )
        self.head = convolution(tensors, "_conv_head")

    def forward(self, x):
        x = self.blocks(F.relu6(self.stem(x)))
        return F.relu6(self.head(x)).mean(dim=(2, 3))
