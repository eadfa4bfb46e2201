"""Image encoders from directories as transformers writes them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from asif_jax.encoders.encoder import Encoder, pure
from asif_jax.encoders.image import processing as image_processing
from asif_jax.encoders.image.clip import load_clip_vision
from asif_jax.encoders.image.dinov2 import load_dinov2
from asif_jax.encoders.image.siglip import load_siglip_vision
from asif_jax.encoders.image.vit import load_vit
from asif_jax.encoders.weights.config import read_json
from asif_jax.encoders.weights.published import hash_files, weight_files


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How checkpoints of one model_type are read.

    Attributes:
      load: from the directory to the module.
      processor: the kind of image processor (see `read_image_processing`) they are used with.
      poolings: what the embedding may be, the default first; empty if there is no choice.
    """

    load: Callable[..., Any]
    processor: str
    poolings: tuple[str, ...] = ()


_POOLINGS = ("cls", "mean")

ARCHITECTURES: Mapping[str, Architecture] = {
    "vit": Architecture(load_vit, "vit", _POOLINGS),
    "deit": Architecture(load_vit, "deit", _POOLINGS),
    "dinov2": Architecture(load_dinov2, "bit", _POOLINGS),
    "dinov2_with_registers": Architecture(load_dinov2, "bit", _POOLINGS),
    "clip": Architecture(load_clip_vision, "clip"),
    "clip_vision_model": Architecture(load_clip_vision, "clip"),
    "siglip": Architecture(load_siglip_vision, "siglip"),
    "siglip_vision_model": Architecture(load_siglip_vision, "siglip"),
}


def load_image_encoder(
    directory: Path,
    *,
    name: str,
    dtype: DTypeLike = jnp.float32,
    pooling: str | None = None,
) -> Encoder:
    """Loads an image encoder.

    Its `apply` takes pixels between 0 and 255, of any real type and any resolution, and normalizes
    them itself.

    Args:
      directory: with config.json, preprocessor_config.json and the weights.
      name: for people.
      dtype: of parameters and products, float32 or bfloat16.
      pooling: "cls" or "mean"; by default what the architecture was published with.

    Returns:
      The encoder.

    Raises:
      ValueError: an unsupported model_type or pooling, or a file or tensor that is missing,
        damaged, unexpected or misshaped.
    """
    path = directory / "config.json"
    kind = read_json(path).get("model_type")
    if kind not in ARCHITECTURES:
        supported = ", ".join(sorted(ARCHITECTURES))
        raise ValueError(f"{path}: unsupported model_type {kind!r}; supported are {supported}")
    architecture = ARCHITECTURES[kind]
    if pooling is not None and pooling not in architecture.poolings:
        choice = " or ".join(architecture.poolings) or "none to choose"
        raise ValueError(f"unsupported pooling {pooling!r} for {kind}: {choice}")
    pooling = pooling or next(iter(architecture.poolings), None)
    processing = image_processing.read_image_processing(directory, default=architecture.processor)
    options = {} if pooling is None else {"pooling": pooling}
    model = architecture.load(directory, **options, dtype=dtype)
    normalize = functools.partial(image_processing.normalize, processing=processing)
    apply, params = pure(model, before=normalize)
    weights = hash_files(path, *weight_files(directory))
    precision = "" if jnp.dtype(dtype) == jnp.float32 else f" {jnp.dtype(dtype).name}"
    described = image_processing.describe(processing)
    return Encoder(
        apply,
        params,
        functools.partial(image_processing.prepare, processing=processing),
        modality="image",
        name=name,
        dimension=model.dimension,
        identity=f"{kind} {weights} {pooling or 'projection'} {described}{precision}",
    )
