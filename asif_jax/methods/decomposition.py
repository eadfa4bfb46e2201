"""Singular values and vectors that can be differentiated where several are equal."""

import jax
import jax.numpy as jnp
from jax import Array

# Of two values that differ by less than this share of the largest, rounding cannot tell which is
# the larger.
_EQUAL = 1e-6


@jax.custom_jvp
def svd(matrix: Array) -> tuple[Array, Array, Array]:
    """The singular value decomposition U diag(s) V' of a matrix, in the thin form.

    Its derivative is the usual one, except that the vectors of equal singular values do not turn
    among themselves on both sides at once, so it is never NaN, as that of `jnp.linalg.svd` is. It
    is right for what does not depend on how the vectors of the value zero are chosen.

    Args:
      matrix: [d, e] float32.

    Returns:
      U [d, r], s [r] descending, V [e, r], for r the smaller of d and e.

    Example:
      >>> svd(2.0 * jnp.eye(2))[1].tolist()
      [2.0, 2.0]
    """
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left, values, right.T


@svd.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]):
    (matrix,), (change,) = primals, tangents
    left, values, right = svd(matrix)
    largest = jnp.maximum(values[0], jnp.finfo(values.dtype).tiny)
    between = _matmul(_matmul(left.T, change), right)
    # The two sides turn apart by the first, which equal values leave known, and together by the
    # second, which they do not.
    apart = (between - between.T) * _inverse(values[None, :] + values[:, None], largest)
    together = (between + between.T) * _inverse(values[None, :] - values[:, None], largest)
    u_turns, v_turns = (together + apart) / 2, (together - apart) / 2
    inverse = _inverse(values, largest)
    # What leaves the space of the vectors: one of the two is square and leaves none.
    outside = _matmul(change, right) - _matmul(left, between)
    across = _matmul(change.T, left) - _matmul(right, between.T)
    d_left = _matmul(left, u_turns) + outside * inverse
    d_right = _matmul(right, v_turns) + across * inverse
    return (left, values, right), (d_left, jnp.diagonal(between), d_right)


def _inverse(values: Array, largest: Array) -> Array:
    """One over what is not zero but for rounding."""
    some = jnp.abs(values) > _EQUAL * largest
    return jnp.where(some, 1.0 / jnp.where(some, values, 1.0), 0.0)


def _matmul(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
