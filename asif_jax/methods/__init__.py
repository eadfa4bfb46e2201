"""How pairs become scores, a method a file, and what chooses and judges methods."""

from asif_jax.methods.canonical_correlations import cca
from asif_jax.methods.canonical_similarity import csa
from asif_jax.methods.fusion import fused
from asif_jax.methods.hubness import with_csls
from asif_jax.methods.method import Method
from asif_jax.methods.orthogonal_procrustes import procrustes
from asif_jax.methods.recommended import best, two_cosines
from asif_jax.methods.relative_representations import asif, paper
from asif_jax.methods.ridge_regression import ridge
from asif_jax.methods.square_root import with_square_root
from asif_jax.methods.table import METHODS, named

__all__ = [
    "METHODS",
    "Method",
    "asif",
    "best",
    "cca",
    "csa",
    "fused",
    "named",
    "paper",
    "procrustes",
    "ridge",
    "two_cosines",
    "with_csls",
    "with_square_root",
]
