"""Orthogonal Procrustes: the rotation that brings one modality closest to the other.

Schoenemann, "A Generalized Solution of the Orthogonal Procrustes Problem", Psychometrika 1966.
"""

from asif_jax.methods.linear import Weights, linear_method
from asif_jax.methods.method import Method


def procrustes() -> Method:
    """Cosine of V' (y - m_y) and U' (x - m_x), where U S V' = C_xy.

    Directions that no pair couples are left out.

    Returns:
      The method.

    Example:
      >>> procrustes().name
      'procrustes'
    """
    return linear_method(
        "procrustes",
        {},
        shrinkage=lambda sums, modality: 1.0,
        weights=Weights(),
        whiten=(False, False),
    )
