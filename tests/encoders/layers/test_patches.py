import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from asif_jax.encoders.layers import patches


def test_patches_are_convolved():
    module = patches.Patches(4, 5, dtype=jnp.float32, rngs=nnx.Rngs(0))
    module.bias.set_value(jnp.arange(5.0))
    images = np.random.default_rng(0).normal(size=[2, 11, 8, 3]).astype(np.float32)
    result = module(jnp.asarray(images))
    assert result.shape == (2, 2, 2, 5)
    kernel = np.asarray(module.kernel.get_value())
    for batch, row, column in np.ndindex(2, 2, 2):
        patch = images[batch, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        expected = np.einsum("hwi,hwio->o", patch, kernel) + np.arange(5.0)
        np.testing.assert_allclose(result[batch, row, column], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(4, 9), (9, 4), (7, 7), (3, 1), (1, 3), (37, 16)])
def test_resampling_keeps_constants_and_symmetry(inputs, outputs, antialias):
    matrix = patches.cubic_resampling(inputs, outputs, antialias=antialias)
    assert matrix.shape == (outputs, inputs)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)
    if inputs == outputs:
        np.testing.assert_allclose(matrix, np.eye(inputs), atol=1e-6)


@pytest.mark.parametrize("antialias", [False, True])
def test_resampling_keeps_straight_lines_inside(antialias):
    matrix = patches.cubic_resampling(20, 45, antialias=antialias)
    centers = (np.arange(45) + 0.5) * 20 / 45 - 0.5
    np.testing.assert_allclose((matrix @ np.arange(20))[6:-6], centers[6:-6], atol=0.05)


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 9), (9, 4), (37, 16)])
def test_antialiased_resampling_is_that_of_jax(inputs, outputs):
    values = np.random.default_rng(0).normal(size=[inputs, 3]).astype(np.float32)
    expected = jax.image.resize(values, (outputs, 3), "cubic", antialias=True)
    matrix = patches.cubic_resampling(inputs, outputs, antialias=True)
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-5)


def test_positions_are_resampled_in_both_directions():
    positions = np.random.default_rng(0).normal(size=[9, 2]).astype(np.float32)
    result = patches.resize_positions(jnp.asarray(positions), (5, 2))
    rows = patches.cubic_resampling(3, 5, antialias=False)
    columns = patches.cubic_resampling(3, 2, antialias=False)
    expected = np.einsum("rp,cq,pqd->rcd", rows, columns, positions.reshape(3, 3, 2))
    np.testing.assert_allclose(result, expected, atol=1e-5)
    same = patches.resize_positions(jnp.asarray(positions), (3, 3))
    np.testing.assert_array_equal(same, positions.reshape(3, 3, 2))


def test_positions_must_form_a_square():
    with pytest.raises(ValueError, match="8 positions form no square"):
        patches.resize_positions(jnp.zeros([8, 2]), (2, 2))
