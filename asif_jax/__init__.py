"""ASIF in JAX: multimodal models without training."""

from asif_jax import (
    anchors,
    approximate,
    calibration,
    captions,
    hubness,
    in_place,
    metrics,
    sharding,
    trust,
    tuning,
    whitening,
)
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
    "calibration",
    "captions",
    "class_scores",
    "classify",
    "explain",
    "hubness",
    "in_place",
    "mean_prompts",
    "metrics",
    "normalize",
    "project",
    "rank",
    "represent",
    "sharding",
    "similarity",
    "trust",
    "tuning",
    "whitening",
]
