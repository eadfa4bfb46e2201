"""Frozen encoders in Flax, and the readers of their published weights."""

from asif_jax.encoders.batching import microbatched, sharded
from asif_jax.encoders.encoder import Encoder
from asif_jax.encoders.image.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from asif_jax.encoders.loading import load, source_of

__all__ = [
    "EfficientNetLite",
    "EfficientNetLiteConfig",
    "Encoder",
    "load",
    "microbatched",
    "sharded",
    "source_of",
]
