"""What is computed a block at a time is what is computed at once."""

import jax
import jax.numpy as jnp
import numpy as np

from asif_jax import methods
from asif_jax.core import anchors
from asif_jax.methods import blocks, decomposition, statistics


def test_triangles_of_many_columns():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=[20, 301]).astype(np.float32)
    found = np.asarray(blocks.sum_of_outers(rows))
    np.testing.assert_allclose(found, rows.T @ rows, atol=1e-4)
    np.testing.assert_array_equal(found, found.T)
    lower = np.tril(rng.normal(size=[301, 301])).astype(np.float32)
    expected = np.linalg.norm(rows @ lower.T, axis=-1)
    np.testing.assert_allclose(blocks.lengths_in(lower, rows), expected, rtol=1e-5)


def test_more_rows_than_a_block():
    n = blocks.ROWS + 5
    rows = np.random.default_rng(0).normal(size=[n, 2, 3]).astype(np.float32)
    found = blocks.map_rows(lambda part: jnp.sum(part, axis=(1, 2)), rows)
    np.testing.assert_allclose(found, rows.sum(axis=(1, 2)), atol=1e-5)
    model = anchors.create({"a": rows, "b": rows[:, 0] + 1.0})
    model = model._replace(live=jnp.arange(n) % 7 != 3)
    sums = statistics.measure(model)
    alive = {m: np.asarray(array, np.float64)[model.live] for m, array in model.embeddings.items()}
    flat = alive["a"].reshape(-1, 3)
    assert (sums.pairs, sums.counts["a"]) == (len(alive["b"]), len(flat))
    np.testing.assert_allclose(sums.outers["a"], flat.T @ flat, rtol=1e-5, atol=0.02)
    crosses = alive["a"].mean(axis=1).T @ alive["b"]
    np.testing.assert_allclose(sums.crosses["a"]["b"], crosses, rtol=1e-5, atol=0.02)


def test_fitting_makes_no_float32_copy_of_bfloat16_pairs():
    n, d = 200_000, 1280
    shape = jax.ShapeDtypeStruct
    embeddings = {"image": shape((n, d), jnp.bfloat16), "text": shape((n, 8), jnp.bfloat16)}
    pairs = anchors.Anchors(embeddings, shape((n,), bool))
    for method in (methods.asif(), methods.with_square_root(methods.cca())):
        memory = jax.jit(lambda pairs, m=method: m.fit(pairs)).lower(pairs).compile()
        analysis = memory.memory_analysis()
        if analysis is None:
            continue
        assert analysis.temp_size_in_bytes < 4 * n * d


def test_derivatives_of_equal_singular_values_are_finite_and_right():
    change = np.random.default_rng(0).normal(size=[4, 3]).astype(np.float32)

    def rebuilt(matrix):
        left, values, right = decomposition.svd(matrix)
        return (left * values**3) @ right.T

    for diagonal in ([0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.5, 0.0], [2.0, 1.0, 0.5]):
        matrix = jnp.eye(4, 3) * jnp.array(diagonal)
        _, slope = jax.jvp(rebuilt, (matrix,), (change,))
        _, expected = jax.jvp(lambda m: m @ m.T @ m, (matrix,), (change,))
        np.testing.assert_allclose(slope, expected, atol=1e-4)
    _, slope = jax.jvp(rebuilt, (jnp.eye(4, 3),), (change,))
    assert np.isfinite(slope).all()
