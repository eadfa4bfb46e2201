"""Convolutions in float64 NumPy."""

import numpy as np


def convolve_same(x, kernel, stride, groups):
    """[batch, h, w, in] with [out, in / groups, k, k], TensorFlow's "SAME" padding, float64."""
    size = kernel.shape[-1]
    outputs = [-(-side // stride) for side in x.shape[1:3]]
    missing = [
        max((o - 1) * stride + size - s, 0) for o, s in zip(outputs, x.shape[1:3], strict=True)
    ]
    x = np.pad(x, ((0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)))
    result = np.zeros([len(x), *outputs, len(kernel)])
    for row in range(outputs[0]):
        for column in range(outputs[1]):
            top, left = row * stride, column * stride
            patch = x[:, top : top + size, left : left + size]
            if groups == 1:
                result[:, row, column] = np.einsum("bhwi,oihw->bo", patch, kernel)
            else:
                result[:, row, column] = np.einsum("bhwc,chw->bc", patch, kernel[:, 0])
    return result
