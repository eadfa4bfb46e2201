"""Image encoders from directories as transformers writes them."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from asif_jax.encoders.encoder import Encoder, pure
from asif_jax.encoders.image import processing as image_processing
from asif_jax.encoders.weights.config import read_json
from asif_jax.encoders.weights.published import hash_files, weight_files


@dataclasses.dataclass(frozen=True)
class ImageArchitecture:
    """How the checkpoints of one model_type become image encoders.

    Attributes:
      module: reads a checkpoint, as module(directory, dtype=...), and returns what embeds
        normalized images and has a `dimension`. If there are poolings, pooling=... is passed too.
      processor: names the kind of image processor that the checkpoints are used with; see
        `read_image_processing`.
      poolings: lists what the embedding may be, the default first. It is empty if there is no
        choice.
    """

    module: Callable[..., Any]
    processor: str
    poolings: tuple[str, ...] = ()

    def load(
        self,
        checkpoint: Path,
        *,
        name: str,
        dtype: DTypeLike = jnp.float32,
        pooling: str | None = None,
        prompt: str | None = None,
    ) -> Encoder:
        """Loads an image encoder.

        Its `apply` takes pixels between 0 and 255, of any real type and any resolution, and
        normalizes them itself.

        Args:
          checkpoint: the directory with config.json, preprocessor_config.json and the weights.
          name: the encoder's name for people.
          dtype: the type of parameters and products, float32 or bfloat16.
          pooling: one of `poolings`, instead of the first.
          prompt: must be None, because images have no prompt.

        Returns:
          The encoder.

        Raises:
          ValueError: a prompt; an unsupported pooling; or a file or tensor that is missing,
            damaged, unexpected or misshaped.
        """
        if prompt is not None:
            raise ValueError(f"{name} is an image encoder and takes no prompt")
        path = checkpoint / "config.json"
        kind = read_json(path)["model_type"]
        options = self._pooling_option(kind, pooling)
        processing = image_processing.read_image_processing(checkpoint, default=self.processor)
        model = self.module(checkpoint, **options, dtype=dtype)
        normalize = functools.partial(image_processing.normalize, processing=processing)
        apply, params = pure(model, before=normalize)
        weights = hash_files(path, *weight_files(checkpoint))
        embedding = options.get("pooling", "projection")
        precision = "" if jnp.dtype(dtype) == jnp.float32 else f" {jnp.dtype(dtype).name}"
        described = image_processing.describe(processing)
        return Encoder(
            apply,
            params,
            functools.partial(image_processing.prepare, processing=processing),
            modality="image",
            name=name,
            dimension=model.dimension,
            identity=f"{kind} {weights} {embedding} {described}{precision}",
        )

    def _pooling_option(self, kind: str, wanted: str | None) -> dict[str, str]:
        """The argument that tells the module its pooling; none if there is no choice."""
        if wanted is not None and wanted not in self.poolings:
            choice = " or ".join(self.poolings) or "none to choose"
            raise ValueError(f"unsupported pooling {wanted!r} for {kind}: {choice}")
        return {"pooling": wanted or self.poolings[0]} if self.poolings else {}
