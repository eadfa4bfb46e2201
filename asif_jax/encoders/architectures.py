"""The architectures that can be loaded, in one table, and which of them a checkpoint is of.

A new encoder is one new file, which defines all that is specific to it, and one line here.
"""

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from jax.typing import DTypeLike

from asif_jax.encoders.encoder import Encoder
from asif_jax.encoders.image import clip as clip_image
from asif_jax.encoders.image import dinov2, efficientnet_lite, vit
from asif_jax.encoders.image import siglip as siglip_image
from asif_jax.encoders.text import bert, mpnet, roberta
from asif_jax.encoders.text import clip as clip_text
from asif_jax.encoders.text import siglip as siglip_text
from asif_jax.encoders.text.sentence_modules import read_sentence_modules
from asif_jax.encoders.weights.config import read_json


class Architecture(Protocol):
    """What knows how to turn checkpoints into encoders of one modality."""

    def load(
        self,
        checkpoint: Path,
        *,
        name: str,
        dtype: DTypeLike,
        pooling: str | None,
        prompt: str | None,
    ) -> Encoder:
        """Loads an encoder.

        Args:
          checkpoint: the directory or file.
          name: the encoder's name for people.
          dtype: the type of parameters and products, float32 or bfloat16.
          pooling: how the parts of an item become one embedding; None for what the checkpoint says.
          prompt: the name of what is put before every item; None for what the checkpoint says.

        Returns:
          The encoder.

        Raises:
          ValueError: an option that does not apply, or a file or tensor that is missing, damaged,
            unexpected or misshaped.
        """
        ...


# By modality, then by the model_type of a directory's config.json, or by a pattern of the names of
# files where a checkpoint is a single file.
ARCHITECTURES: Mapping[str, Mapping[str, Architecture]] = {
    "image": {
        "clip": clip_image.ARCHITECTURE,
        "clip_vision_model": clip_image.ARCHITECTURE,
        "deit": vit.DEIT_ARCHITECTURE,
        "dinov2": dinov2.ARCHITECTURE,
        "dinov2_with_registers": dinov2.ARCHITECTURE,
        "efficientnet-lite[0-4]*": efficientnet_lite,
        "siglip": siglip_image.ARCHITECTURE,
        "siglip_vision_model": siglip_image.ARCHITECTURE,
        "vit": vit.ARCHITECTURE,
    },
    "text": {
        "bert": bert.ARCHITECTURE,
        "clip": clip_text.ARCHITECTURE,
        "clip_text_model": clip_text.ARCHITECTURE,
        "mpnet": mpnet.ARCHITECTURE,
        "roberta": roberta.ARCHITECTURE,
        "siglip": siglip_text.ARCHITECTURE,
        "siglip_text_model": siglip_text.ARCHITECTURE,
        "xlm-roberta": roberta.ARCHITECTURE,
    },
}


def architectures_of(checkpoint: Path) -> dict[str, Architecture]:
    """Finds out which encoders a checkpoint holds.

    Args:
      checkpoint: a directory as transformers or sentence-transformers write it, or a file.

    Returns:
      Modality -> architecture: of CLIP, for example, one for images and one for texts.

    Raises:
      ValueError: the checkpoint is of no architecture in the table, or does not say of which.
    """
    if checkpoint.is_file():
        return _by_file_name(checkpoint)
    modalities, transformer = set(ARCHITECTURES), checkpoint
    if (checkpoint / "modules.json").is_file():
        # A sentence encoder, of texts even where its transformer could encode images as well.
        modalities, transformer = {"text"}, read_sentence_modules(checkpoint).transformer
    path = transformer / "config.json"
    kind = read_json(path).get("model_type")
    tables = {m: table for m, table in ARCHITECTURES.items() if m in modalities}
    found = {m: table[kind] for m, table in tables.items() if kind in table}
    if not found:
        kinds = sorted({each for table in tables.values() for each in table if "*" not in each})
        raise ValueError(
            f"{path}: unsupported model_type {kind!r}; supported are {', '.join(kinds)}"
        )
    return found


def _by_file_name(path: Path) -> dict[str, Architecture]:
    found = {
        modality: architecture
        for modality, table in ARCHITECTURES.items()
        for pattern, architecture in table.items()
        if "*" in pattern and fnmatch.fnmatchcase(path.name, pattern)
    }
    if not found:
        patterns = [each for table in ARCHITECTURES.values() for each in table if "*" in each]
        raise ValueError(
            f"{path} is not an encoder: its name is not of the form {' or '.join(patterns)}"
        )
    return found
