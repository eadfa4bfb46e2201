"""Attention and the activations of published transformers.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017; Hendrycks and Gimpel, "Gaussian Error
Linear Units", 2016.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array


def attention(
    query: Array, key: Array, value: Array, *, mask: Array | None = None, bias: Array | None = None
) -> Array:
    """Multi-head scaled dot-product attention (Vaswani et al., equation 1).

    The products take and return the arguments' type and accumulate in float32; the softmax is
    float32. Weights are normalized after they met the values: XLA's CPU backend then fuses all
    elementwise work in one pass over the logits.

    Args:
      query: [batch, queries, heads, width].
      key: [batch, keys, heads, width].
      value: [batch, keys, heads, width].
      mask: bool, broadcastable to [batch, heads, queries, keys]; false where a query may not look.
        A query that may look nowhere gets the mean of all values.
      bias: likewise, added to the scaled logits.

    Returns:
      [batch, queries, heads, width], of the type of `value`.

    Example:
      >>> keys = jnp.array([[1.0, 0.0], [0.0, 1.0]])[None, :, None, :]
      >>> attention(50 * keys, keys, keys)[0, :, 0].round(3).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    scaled = query * query.shape[-1] ** -0.5
    logits = jnp.einsum("bqhd,bkhd->bhqk", scaled, key, preferred_element_type=jnp.float32)
    if bias is not None:
        logits += bias
    if mask is not None:
        logits = jnp.where(mask, logits, 0.5 * jnp.finfo(logits.dtype).min)
    # The maximum cancels, so no gradient need pass through it.
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    attended = jnp.einsum(
        "bhqk,bkhd->bhqd",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    attended /= weights.sum(-1, keepdims=True)
    return attended.astype(value.dtype).swapaxes(1, 2)


def gelu(x: Array) -> Array:
    """The exact GELU: x times the normal distribution function of x.

    With erf rather than, as in jax.nn, its complement, which the CPU computes several times slower
    and whose accuracy in the left tail is lost in the sums that follow.

    Args:
      x: floats.

    Returns:
      The same shape and type.

    Example:
      >>> f"{gelu(jnp.array(-1.0)):.4f}"
      '-0.1587'
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


def quick_gelu(x: Array) -> Array:
    """Sigmoid approximation of the GELU, which CLIP was trained with.

    Args:
      x: floats.

    Returns:
      The same shape and type.

    Example:
      >>> f"{quick_gelu(jnp.array(-1.0)):.4f}"
      '-0.1542'
    """
    return x * jax.nn.sigmoid(1.702 * x)
