import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from asif_jax.encoders.encoder import pure
from asif_jax.encoders.pieces import in_pieces

RNG = np.random.default_rng(0)
BATCH = {"x": RNG.normal(size=[11, 4]).astype(np.float32), "scale": np.arange(11.0)}


def apply(params, batch):
    return jnp.tanh(batch["x"] @ params) * batch["scale"][:, None]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 10, 11, 12])
def test_pieces_make_up_the_whole(rows):
    params = jnp.asarray(RNG.normal(size=[4, 3]))
    result = jax.jit(in_pieces(apply, rows))(params, BATCH)
    np.testing.assert_allclose(result, apply(params, BATCH), rtol=1e-5)


def test_gradients_pass_through_pieces():
    params = jnp.asarray(RNG.normal(size=[4, 3]))

    def slope(function):
        return jax.grad(lambda params: jnp.sum(function(params, BATCH) ** 2))(params)

    np.testing.assert_allclose(slope(in_pieces(apply, 4)), slope(apply), rtol=1e-5)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, batch):
        return jnp.tanh(self.linear(batch))


@pytest.mark.parametrize("rows", [1, 8, 9, 30])
def test_the_pure_function_is_the_module_after_what_comes_before(rows):
    model = Model(nnx.Rngs(0))
    apply, params = pure(model, before=lambda batch: 2 * batch)
    batch = RNG.normal(size=[rows, 4]).astype(np.float32)
    np.testing.assert_allclose(apply(params, batch), model(2 * batch), atol=1e-6)
    mapped = jax.vmap(apply, in_axes=(None, 0))(params, batch[:, None])
    np.testing.assert_allclose(mapped[:, 0], model(2 * batch), atol=1e-6)
    gradient = jax.grad(lambda batch: apply(params, batch).sum())(batch)
    expected = jax.grad(lambda batch: model(2 * batch).sum())(batch)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
