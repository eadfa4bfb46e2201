"""ASIF in JAX: multimodal models without training."""

import importlib
from typing import Any

from asif_jax.core import anchors, approximate, captions, in_place, metrics, sharding
from asif_jax.core.anchors import Anchors, represent
from asif_jax.core.cosine import normalize
from asif_jax.core.explanation import Explanation, explain
from asif_jax.core.projection import RelativeRepresentation, project
from asif_jax.core.scoring import class_scores, classify, mean_prompts, rank, similarity
from asif_jax.methods import calibration, hubness, trust, tuning, whitening

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

# The upper floors load when they are asked for, so that the core needs jax and numpy alone.
_LATER = {
    "data": "asif_jax.data",
    "encoders": "asif_jax.encoders",
    "live": "asif_jax.jobs.serving",
    "store": "asif_jax.store",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(_LATER[name])
