"""Which pairs agree with the others, and anchors weighted by it; ours, not the paper's.

A pair whose caption is another image's misleads every score it takes part in. The other pairs tell:
by them alone its image and caption do not match.
"""

import jax
import jax.numpy as jnp
from jax import Array

from asif_jax.core.cosine import normalize
from asif_jax.core.projection import RelativeRepresentation, without
from asif_jax.core.scoring import similarity
from asif_jax.methods.hubness import csls


@jax.jit
def agreement(first: RelativeRepresentation, second: RelativeRepresentation) -> Array:
    """How well the two sides of each anchor match by all other anchors, beside other matches.

    Every anchor is represented without itself, all are scored against all, hubs are corrected by
    CSLS, and the place of its own other side among all is averaged over both directions. Low values
    are the pairs to look at first.

    Args:
      first: [n, k] representations of the anchors themselves in one modality, row i that of
        anchor i.
      second: [n, l] representations of the same anchors in the other.

    Returns:
      [n] float32 in [0, 1]: the share of other matches that are worse. It takes [n, n] scores.

    Raises:
      ValueError: rows that are not the anchors.

    Example:
      >>> from asif_jax import project
      >>> rows = jnp.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
      >>> itself = project(rows, rows, k=2, p=1.0)
      >>> agreement(itself, itself[jnp.array([0, 2, 1, 3])]).argmin().item() in (1, 2)
      True
    """
    n = first.size
    if not first.values.ndim == second.values.ndim == 2 or not (
        len(first.values) == len(second.values) == n == second.size
    ):
        raise ValueError(
            f"both must be [n, k] representations of the {n} anchors themselves: "
            f"got {first.values.shape} and {second.values.shape} over {second.size} anchors"
        )
    everyone = jnp.arange(n)
    scores = csls(similarity(without(first, everyone), without(second, everyone)))
    own = jnp.diagonal(scores)
    # A compiler may round the two copies of a score differently.
    other = ~jnp.eye(n, dtype=bool)
    worse = jnp.sum(other & (scores < own[:, None]), axis=1) + jnp.sum(
        other & (scores < own), axis=0
    )
    return worse / max(2 * (n - 1), 1)


@jax.jit
def weigh(representation: RelativeRepresentation, weights: Array) -> RelativeRepresentation:
    """Lets anchors count for more or less: a score becomes a weighted sum over pairs.

    `jnp.clip(2 * agreement - 1, 0, 1) ** 2` makes weights of what `agreement` says.

    Args:
      representation: [..., k], of either modality.
      weights: [n] float, at least 0, of the anchors.

    Returns:
      The representation with every coordinate times the root of its anchor's weight, normalized.
      Weigh both sides of a score alike.

    Raises:
      ValueError: not a weight for every anchor.

    Example:
      >>> r = RelativeRepresentation(jnp.array([0.6, 0.8]), jnp.array([0, 1]), 2)
      >>> weigh(r, jnp.array([1.0, 0.0])).values.tolist()
      [1.0, 0.0]
    """
    weights = jnp.asarray(weights)
    if weights.shape != (representation.size,):
        raise ValueError(f"weights must be [{representation.size}]: got {weights.shape}")
    values = representation.values * jnp.sqrt(weights)[representation.indices]
    return RelativeRepresentation(normalize(values), representation.indices, representation.size)
