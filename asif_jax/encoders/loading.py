"""One call from a name or a path to an encoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from asif_jax.encoders.architectures import Architecture, architectures_of
from asif_jax.encoders.encoder import Encoder
from asif_jax.encoders.own_module import encoder_of_function, names_function
from asif_jax.encoders.packages import PACKAGES, installed_weights
from asif_jax.encoders.weights import hub


def load(
    name_or_path: str | Path,
    *,
    modality: str | None = None,
    revision: str | None = None,
    dtype: DTypeLike = jnp.float32,
    pooling: str | None = None,
    prompt: str | None = None,
) -> Encoder:
    """Loads an encoder.

    Args:
      name_or_path: one of these, the first that applies:
        "efficientnet-lite0", "efficientnet-lite2" or "all-MiniLM-L6-v2", whose weights come from
        packages of their own;
        a directory as transformers or sentence-transformers write it, or an EfficientNet-Lite .pth
        file with the variant in its name;
        "module:function", a function that returns an `Encoder` of any modality and requires no
        arguments, in a module that can be imported or lies in the current directory;
        "organization/name" on the Hugging Face hub, with "@revision" if you like.
      modality: "image", "text" or any other name: the modality that the encoder must be of. It is
        required for a checkpoint that has encoders of two (CLIP, SigLIP).
      revision: a branch, tag or commit on the hub.
      dtype: the type of parameters and products, float32 or bfloat16. Embeddings are float32
        always. What a function of yours returns is left as it is.
      pooling: how the tokens of an item become one embedding, instead of what the checkpoint says.
        For images "cls" or "mean"; for texts those and "max", "lasttoken", "weightedmean" or
        "mean_sqrt_len_tokens".
      prompt: the name of one of the prompts of a sentence encoder, which is put before every text.

    Returns:
      The encoder.

    Raises:
      ValueError: an unknown name, weights that are not installed (says what to install), a
        repository that cannot be read, an unsupported model_type, another modality, an option that
        does not apply, a file or tensor that is missing, damaged, unexpected or misshaped, or a
        function that cannot be imported or returns no encoder.
    """
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"dtype must be float32 or bfloat16: got {jnp.dtype(dtype).name}")
    if _is_function(name_or_path):
        given = {"revision": revision, "pooling": pooling, "prompt": prompt}
        return _call_function(str(name_or_path), modality, given)
    name, checkpoint = _locate(name_or_path, revision)
    architecture = _choose(checkpoint, architectures_of(checkpoint), modality)
    return architecture.load(checkpoint, name=name, dtype=dtype, pooling=pooling, prompt=prompt)


def source_of(name_or_path: str | Path) -> str:
    """What to remember of an encoder so that `load` finds it again from any directory.

    Args:
      name_or_path: what `load` was given.

    Returns:
      The absolute path of what lies on this machine's disk, under its own name or that of a link to
      it; any other name (of a package, on the hub, of a function) unchanged.

    Example:
      >>> source_of("all-MiniLM-L6-v2"), source_of("facebook/dino-vits16@main")
      ('all-MiniLM-L6-v2', 'facebook/dino-vits16@main')
      >>> source_of(".") == str(Path.cwd())
      True
    """
    return str(Path(name_or_path).absolute() if _is_on_disk(name_or_path) else name_or_path)


def _is_on_disk(name_or_path: str | Path) -> bool:
    return str(name_or_path) not in PACKAGES and Path(name_or_path).exists()


def _is_function(name_or_path: str | Path) -> bool:
    return names_function(str(name_or_path)) and not _is_on_disk(name_or_path)


def _call_function(name: str, modality: str | None, options: Mapping[str, Any]) -> Encoder:
    if given := [option for option, value in options.items() if value is not None]:
        raise ValueError(f"{name} is a function, so {' and '.join(given)} cannot be chosen")
    return encoder_of_function(name, modality=modality)


def _locate(name_or_path: str | Path, revision: str | None) -> tuple[str, Path]:
    """The encoder's name for people, and its file or directory."""
    name, path = str(name_or_path), Path(name_or_path)
    local = name in PACKAGES or path.exists()
    if not local and hub.is_hub_name(name):
        return name.partition("@")[0].rpartition("/")[2], hub.fetch(name, revision=revision)
    if not local:
        raise ValueError(
            f"no encoder {name}: it is no path, no organization/name on the hub, no "
            f"module:function, nor among {sorted(PACKAGES)}"
        )
    if revision is not None:
        raise ValueError(f"{name} is not on the hub, so it has no revision {revision}")
    if name in PACKAGES:
        return name, installed_weights(name)
    return path.resolve().stem if path.is_file() else path.resolve().name, path


def _choose(
    checkpoint: Path, found: Mapping[str, Architecture], modality: str | None
) -> Architecture:
    """The architecture of the wanted modality, or the only one."""
    possible = " and ".join(found)
    if modality is None and len(found) > 1:
        raise ValueError(f"{checkpoint} encodes {possible}: say which by modality=")
    if modality not in (None, *found):
        raise ValueError(f"{checkpoint} encodes {possible}, not {modality}")
    return found[modality or next(iter(found))]
