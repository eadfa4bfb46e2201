import jax.numpy as jnp
import numpy as np
import pytest
from convolution_oracle import convolve_same

from asif_jax.encoders.layers import depthwise


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(7, 8), (8, 9), (1, 2)])
def test_both_depthwise_convolutions_agree(size, stride, shape):
    rng = np.random.default_rng(0)
    images = rng.normal(size=[2, *shape, 4]).astype(np.float32)
    kernel = rng.normal(size=[size, size, 1, 4]).astype(np.float32)
    expected = convolve_same(
        images.astype(np.float64), kernel.transpose(3, 2, 0, 1), stride, groups=4
    )
    for convolve in (
        depthwise.depthwise_by_shifts,
        depthwise.depthwise_by_groups,
    ):
        result = convolve(jnp.asarray(images), jnp.asarray(kernel), stride=stride)
        np.testing.assert_allclose(result, expected, atol=1e-5)
