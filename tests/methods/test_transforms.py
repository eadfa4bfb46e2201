"""Every method under the transforms of JAX, and over meshes of devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from method_cases import TABLE, coupled, scores

from asif_jax import methods
from asif_jax.core import anchors

# One method of each kind; the others are made of these.
KINDS = ["paper", "asif of few", "csa", "ridge", "two_cosines"]
SMOOTH = ["cca", "csa", "procrustes", "ridge"]


def chain(method):
    """Pairs and queries -> scores, in one function."""

    def run(pairs, queries):
        state = method.fit(pairs)
        return method.score(state, *(method.represent(state, queries[m], m) for m in queries))

    return run


@pytest.mark.parametrize("name", KINDS)
def test_jit_and_vmap_over_models_and_queries(name):
    method, _ = TABLE[name]
    models = [coupled(14, captions=2, seed=seed) for seed in (1, 2)]
    queries = {m: coupled(6, seed=5)[m] for m in ("image", "text")}
    single = [scores(method, method.fit(pairs), queries) for pairs in models]
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *models)
    together = jax.jit(jax.vmap(chain(method), (0, None)))(stacked, queries)
    np.testing.assert_allclose(together, np.stack(single), atol=1e-5)
    state = method.fit(models[0])
    rows = jax.vmap(method.represent, (None, 0, None))(state, queries["image"], "image")
    text = method.represent(state, queries["text"], "text")
    np.testing.assert_allclose(method.score(state, rows, text), single[0], atol=1e-5)

    def step(carry, image):
        one = method.represent(state, image[None], "image")
        return carry + 1, method.score(state, one, text)[0]

    count, scanned = jax.lax.scan(step, 0, queries["image"])
    assert count == 6
    np.testing.assert_allclose(scanned, single[0], atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_gradients_of_queries_are_finite_and_those_of_the_slopes(name):
    method, _ = TABLE[name]
    state = method.fit(coupled(14, captions=2))
    text = method.represent(state, coupled(4, seed=5)["text"], "text")
    images = coupled(3, seed=6)["image"]

    @jax.jit
    def total(images):
        return jnp.sum(method.score(state, method.represent(state, images, "image"), text))

    slopes = jax.jit(jax.grad(total))(images)
    assert np.isfinite(slopes).all()
    direction = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    step = 3e-3
    measured = (total(images + step * direction) - total(images - step * direction)) / (2 * step)
    np.testing.assert_allclose(np.sum(slopes * direction), measured, rtol=0.02, atol=5e-3)
    zero = jax.grad(total)(jnp.zeros_like(images))
    assert np.isfinite(zero).all()


@pytest.mark.parametrize("n", [20, 6])
@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_pairs_are_the_slopes(name, n):
    method, _ = TABLE[name]
    pairs, queries = coupled(n), {m: coupled(3, seed=5)[m] for m in ("image", "text")}

    @jax.jit
    def total(text):
        return jnp.sum(chain(method)({**pairs, "text": text}, queries) ** 2)

    slopes = jax.jit(jax.grad(total))(pairs["text"])
    assert np.isfinite(slopes).all()
    direction = np.random.default_rng(0).normal(size=slopes.shape).astype(np.float32)
    step = 3e-3
    ahead, behind = (total(pairs["text"] + s * direction) for s in (step, -step))
    measured = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(np.sum(slopes * direction), measured, rtol=0.03, atol=0.02)


@pytest.mark.parametrize("name", ["paper", "two_cosines"])
def test_pairs_that_are_split_over_devices_score_as_on_one(name):
    method, _ = TABLE[name]
    pairs, queries = anchors.create(coupled(16, captions=2)), coupled(4, seed=5)
    queries = {m: queries[m] for m in ("image", "text")}
    expected = scores(method, method.fit(pairs), queries)
    mesh = jax.make_mesh((4,), ("pairs",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("pairs"))
    split = jax.device_put(pairs, rows)
    np.testing.assert_allclose(scores(method, method.fit(split), queries), expected, atol=1e-5)
    inside = jax.jit(chain(method), in_shardings=(rows, None))(split, queries)
    np.testing.assert_allclose(inside, expected, atol=1e-5)

    def part(state, images, text):
        left, right = (
            method.represent(state, side, m) for side, m in ((images, "image"), (text, "text"))
        )
        return method.score(state, left, right)

    spread = jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("pairs"), PartitionSpec()),
        out_specs=PartitionSpec("pairs"),
        check_vma=False,
    )
    found = jax.jit(spread)(method.fit(pairs), queries["image"], queries["text"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (methods.two_cosines, [{"p": 1.0}, {"p": 1.7}, {"shrinkage": 2.0}]),
        (methods.csa, [{"shrinkage": 1.0}, {"shrinkage": 2.0}]),
        (methods.ridge, [{"penalty": 1.0}, {"penalty": 2.0}]),
    ],
)
def test_other_values_of_the_settings_compile_nothing_new(make, settings):
    pairs, queries = coupled(11, d=8, e=5), coupled(3, seed=5, d=8, e=5)
    method = make()
    scores(method, method.fit(pairs), queries)
    with Compiled() as compiled:
        for setting in settings:
            method = make(**setting)
            scores(method, method.fit(pairs), queries)
    assert compiled() == []


class Compiled:
    """Which functions are compiled in a block."""

    def __enter__(self):
        self._names = []
        jax.monitoring.register_event_duration_secs_listener(self._note)
        self._on = True
        return lambda: self._names

    def _note(self, event, duration, **more):
        if self._on and "backend_compile" in event:
            self._names.append(more.get("fun_name", event))

    def __exit__(self, *_):
        self._on = False


def test_numbers_of_live_pairs_trace_once():
    method = methods.two_cosines()
    pairs = anchors.create(coupled(16))
    fit = jax.jit(chex.assert_max_traces(method.fit, n=1))
    for count in (16, 9, 3):
        fit(pairs._replace(live=jnp.arange(16) < count))
