"""Text encoders from directories as sentence-transformers or transformers write them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from asif_jax.encoders.encoder import Encoder, pure
from asif_jax.encoders.layers.pooling import POOLINGS, Head, SentenceEncoder
from asif_jax.encoders.text.sentence_modules import SentenceModules, read_sentence_modules
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
class TextArchitecture:
    """How the checkpoints of one model_type become text encoders.

    Attributes:
      config: is the dataclass of the sizes, with `hidden_size` and `longest`.
      module: builds, as module(config, dtype=..., rngs=...), what turns ids and mask into the
        vectors of the tokens.
      checkpoint_name: gives for the path of a parameter in the module its name in the checkpoint.
      prefix: precedes the names in a checkpoint that has further parts.
      unused: lists patterns of the tensors that such parts bring.
      head: says, as head(content of config.json, sizes), how tokens become an embedding if nothing
        else says it.
      full: says whether all texts are padded to the longest, with padding that counts as text.
    """

    config: type[Any]
    module: Callable[..., nnx.Module]
    checkpoint_name: Callable[[tuple[Any, ...]], str]
    prefix: str
    unused: Sequence[str]
    head: Callable[[Mapping[str, Any], Any], Head] = lambda config, sizes: Head()
    full: bool = False

    def load(
        self,
        checkpoint: Path,
        *,
        name: str,
        dtype: DTypeLike = jnp.float32,
        pooling: str | None = None,
        prompt: str | None = None,
    ) -> Encoder:
        """Loads a text encoder.

        Args:
          checkpoint: a directory of sentence-transformers' form (modules.json and what it lists),
            or one with config.json, weights and tokenizer alone. The embedding of the latter is the
            mean of the tokens, or what the architecture says, such as CLIP's projection of the last
            token.
          name: the encoder's name for people.
          dtype: the type of parameters and matrix products; embeddings are float32 always.
          pooling: "cls", "mean", "max", "lasttoken", "weightedmean" or "mean_sqrt_len_tokens",
            instead of what the directory says.
          prompt: the name of one of the directory's prompts, which is put before every text; by
            default the directory's default, if it has any.

        Returns:
          The encoder.

        Raises:
          ValueError: a file or tensor is missing, damaged, misshaped or unexpected; an unsupported
            module, pooling or activation; or an unknown prompt.
        """
        modules = read_sentence_modules(checkpoint)
        config = read_json(modules.transformer / "config.json")
        parameters = _sizes(self.config, config, modules.transformer)
        head = _head(modules.head or self.head(config, parameters), pooling)
        tokenize = _tokenizer(modules, prompt, longest=parameters.longest, full=self.full)
        model = _model(self, parameters, head, checkpoint, modules.transformer, dtype)
        apply, params = pure(model)
        kind = config["model_type"]
        return Encoder(
            apply,
            params,
            tokenize,
            modality="text",
            name=name,
            dimension=_dimension(head, parameters.hidden_size),
            identity=_identity(kind, checkpoint, modules.transformer, head, tokenize, dtype),
        )


def _sizes(cls: type[Any], config: Mapping[str, Any], directory: Path) -> Any:
    """The sizes of the text tower, which a checkpoint of two towers states in text_config."""
    try:
        return sizes(cls, config.get("text_config") or config)
    except ValueError as error:
        raise ValueError(f"{directory / 'config.json'}: {error}") from error


def _head(head: Head, pooling: str | None) -> Head:
    """The head, with another pooling if one is wanted."""
    head = dataclasses.replace(head, poolings=(pooling,)) if pooling else head
    if not set(head.poolings) <= set(POOLINGS):
        raise ValueError(f"unknown pooling {pooling!r}: it is none of {', '.join(POOLINGS)}")
    return head


def _tokenizer(
    modules: SentenceModules, prompt: str | None, *, longest: int, full: bool
) -> Tokenizer:
    fast = fast_tokenizer(modules.transformer)
    limit = min(modules.max_length or fast.model_max_length, longest)
    return Tokenizer(fast, limit, modules.prompt(prompt), modules.lower_case, full)


def _model(
    architecture: TextArchitecture,
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
