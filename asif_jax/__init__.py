"""ASIF in JAX: multimodal models without training."""

from asif_jax import anchors, approximate, metrics, sharding
from asif_jax.anchors import Anchors, represent
from asif_jax.cosine import normalize
from asif_jax.explain import Explanation, explain
from asif_jax.projection import RelativeRepresentation, project
from asif_jax.scoring import class_scores, classify, mean_prompts, rank, similarity

__all__ = [
    "Anchors",
    "Explanation",
    "RelativeRepresentation",
    "anchors",
    "approximate",
    "class_scores",
    "classify",
    "explain",
    "mean_prompts",
    "metrics",
    "normalize",
    "project",
    "rank",
    "represent",
    "sharding",
    "similarity",
]
