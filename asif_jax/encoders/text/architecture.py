"""Text encoders: from a directory to an `Encoder`, for every architecture of the table below."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from asif_jax.encoders.encoder import Encoder, pure
from asif_jax.encoders.layers.pooling import POOLINGS, Dense, Head, SentenceEncoder
from asif_jax.encoders.text import bert, mpnet, roberta
from asif_jax.encoders.text import clip as clip_text
from asif_jax.encoders.text import siglip as siglip_text
from asif_jax.encoders.text.sentence_modules import read_sentence_modules
from asif_jax.encoders.text.tokenization import Tokenizer, fast_tokenizer, tokenizer_files
from asif_jax.encoders.weights.config import read_json, sizes
from asif_jax.encoders.weights.published import (
    hash_files,
    read_tensors,
    weight_files,
    with_weights,
)
from asif_jax.encoders.weights.tensors import Tensors


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How checkpoints of one model_type are read.

    Attributes:
      config: dataclass of the sizes, with `hidden_size` and `longest`.
      module: (config, dtype=, rngs=) -> module from ids and mask to token vectors.
      checkpoint_name: path of a parameter in the module -> its name in the checkpoint.
      prefix: that the names have in a checkpoint with further parts.
      unused: patterns of the tensors that such parts bring.
      head: content of config.json -> how tokens become an embedding if nothing else says it.
      full: whether all texts are padded to the longest, with padding that counts as text.
    """

    config: type[Any]
    module: Callable[..., nnx.Module]
    checkpoint_name: Callable[[tuple[Any, ...]], str]
    prefix: str
    unused: Sequence[str]
    head: Callable[[Mapping[str, Any]], Head] = lambda config: Head()
    full: bool = False


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that is about the text tower."""
    return config.get("text_config") or config


def _clip_head(config: Mapping[str, Any]) -> Head:
    width = _text(config).get("hidden_size", 512)
    outputs = config.get("projection_dim", 512)
    projection = Dense(width, outputs, "text_projection", bias=False)
    return Head(("lasttoken",), (projection,))


def _siglip_head(config: Mapping[str, Any]) -> Head:
    sizes = _text(config)
    width = sizes.get("hidden_size", 768)
    outputs = sizes.get("projection_size", width)
    return Head(("lasttoken",), (Dense(width, outputs, "head"),))


_ROBERTA = Architecture(
    roberta.RoBERTaConfig, roberta.RoBERTa, bert.checkpoint_name, "roberta.", roberta.UNUSED
)
_CLIP = Architecture(
    clip_text.CLIPTextConfig,
    clip_text.CLIPText,
    clip_text.checkpoint_name,
    "text_model.",
    clip_text.UNUSED,
    _clip_head,
)
_SIGLIP = Architecture(
    siglip_text.SigLIPTextConfig,
    siglip_text.SigLIPText,
    clip_text.checkpoint_name,
    "text_model.",
    siglip_text.UNUSED,
    _siglip_head,
    full=True,
)

# By the model_type of config.json.
ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture(bert.BERTConfig, bert.BERT, bert.checkpoint_name, "bert.", bert.UNUSED),
    "mpnet": Architecture(
        mpnet.MPNetConfig, mpnet.MPNet, mpnet.checkpoint_name, "mpnet.", mpnet.UNUSED
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "clip": _CLIP,
    "clip_text_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_text_model": _SIGLIP,
}


def load_text_encoder(
    directory: Path,
    *,
    name: str,
    dtype: DTypeLike = jnp.float32,
    pooling: str | None = None,
    prompt: str | None = None,
) -> Encoder:
    """Loads a text encoder.

    Args:
      directory: of sentence-transformers' form (modules.json and what it lists), or with
        config.json, weights and tokenizer alone, when the tokens' mean is the embedding, or for
        CLIP its projection of the last token.
      name: for people.
      dtype: of parameters and matrix products; embeddings are float32 always.
      pooling: "cls", "mean", "max", "lasttoken", "weightedmean" or "mean_sqrt_len_tokens", instead
        of what the directory says.
      prompt: the name of one of the directory's prompts, which is put before every text; by default
        the directory's default, if it has any.

    Returns:
      The encoder.

    Raises:
      ValueError: a file or tensor is missing, damaged, misshaped or unexpected; an unsupported
        model_type, module, pooling, activation; or an unknown prompt.
    """
    modules = read_sentence_modules(directory)
    config = read_json(modules.transformer / "config.json")
    kind, architecture = _architecture(config, modules.transformer)
    parameters = _sizes(architecture, config, modules.transformer)
    head = modules.head or architecture.head(config)
    head = dataclasses.replace(head, poolings=(pooling,)) if pooling else head
    if not set(head.poolings) <= set(POOLINGS):
        raise ValueError(f"unknown pooling {pooling!r}: it is none of {', '.join(POOLINGS)}")
    fast = fast_tokenizer(modules.transformer)
    limit = min(modules.max_length or fast.model_max_length, parameters.longest)
    words = modules.prompt(prompt)
    tokenize = Tokenizer(fast, limit, words, modules.lower_case, architecture.full)
    apply, params = pure(
        _model(architecture, parameters, head, directory, modules.transformer, dtype)
    )
    return Encoder(
        apply,
        params,
        tokenize,
        modality="text",
        name=name,
        dimension=_dimension(head, parameters.hidden_size),
        identity=_identity(kind, directory, modules.transformer, head, tokenize, dtype),
    )


def _architecture(config: Mapping[str, Any], directory: Path) -> tuple[str, Architecture]:
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ValueError(
            f"{directory / 'config.json'}: unsupported model_type {kind} of a text encoder; "
            f"supported are {', '.join(ARCHITECTURES)}"
        )
    return kind, ARCHITECTURES[kind]


def _sizes(architecture: Architecture, config: Mapping[str, Any], directory: Path) -> Any:
    try:
        return sizes(architecture.config, _text(config))
    except ValueError as error:
        raise ValueError(f"{directory / 'config.json'}: {error}") from error


def _model(
    architecture: Architecture,
    parameters: Any,
    head: Head,
    directory: Path,
    transformer: Path,
    dtype: DTypeLike,
) -> SentenceEncoder:
    def build(rngs: nnx.Rngs) -> SentenceEncoder:
        module = architecture.module(parameters, dtype=dtype, rngs=rngs)
        return SentenceEncoder(module, head, longest=parameters.longest, dtype=dtype, rngs=rngs)

    def checkpoint_name(path: tuple[Any, ...]) -> str:
        if path[0] == "transformer":
            return architecture.checkpoint_name(path[1:])
        _, _, index, parameter = path
        return f"{head.dense[index].name}.{'bias' if parameter == 'bias' else 'weight'}"

    tensors = read_tensors(transformer).without_prefix(architecture.prefix)
    readers = {_modern(name): read for name, read in tensors.readers.items()}
    for path in _dense_directories(head, directory):
        readers |= {f"{path.name}.{n}": read for n, read in read_tensors(path).readers.items()}
    return with_weights(
        build, Tensors(readers), checkpoint_name, source=directory, unused=architecture.unused
    )


def _modern(name: str) -> str:
    """Layer norms had other names in the first checkpoints, which came from TensorFlow."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _dense_directories(head: Head, directory: Path) -> list[Path]:
    return [
        directory / dense.name.removesuffix(".linear")
        for dense in head.dense
        if dense.name.endswith(".linear")
    ]


def _dimension(head: Head, width: int) -> int:
    return head.dense[-1].outputs if head.dense else width * len(head.poolings)


def _identity(
    kind: str, directory: Path, transformer: Path, head: Head, tokenize: Tokenizer, dtype: DTypeLike
) -> str:
    weights = [
        file
        for path in (transformer, *_dense_directories(head, directory))
        for file in weight_files(path)
    ]
    parts = [
        f"{kind} {hash_files(transformer / 'config.json', *weights)}",
        f"tokenizer {hash_files(*tokenizer_files(transformer))} {tokenize.limit} tokens",
        "lower case" if tokenize.lower_case else "",
        f"prompt {tokenize.prompt!r}" if tokenize.prompt else "",
        "+".join(head.poolings),
        *(f"dense {dense.activation}" for dense in head.dense),
        "unit" if head.unit else "",
        "" if jnp.dtype(dtype) == jnp.float32 else jnp.dtype(dtype).name,
    ]
    return " ".join(part for part in parts if part)
