"""What the files of a sentence-transformers directory say: modules, pooling, length, prompts.

Reimers and Gurevych, "Sentence-BERT", EMNLP 2019. modules.json lists the steps from a text to its
embedding: a transformer, a pooling, linear maps, the scaling to unit length.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asif_jax.encoders.layers.pooling import DENSE_ACTIVATIONS, POOLINGS, Dense, Head
from asif_jax.encoders.weights.config import read_json

_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclasses.dataclass(frozen=True)
class SentenceModules:
    """What surrounds the transformer of a text encoder.

    Attributes:
      transformer: is the directory with config.json, weights and tokenizer.
      head: says how tokens become an embedding; None if the directory does not say.
      max_length: is the largest number of tokens of a text; None if the directory does not say.
      lower_case: says whether texts are lower-cased before the tokenizer.
      prompts: maps the name of a prompt to what is put before a text.
      default_prompt: names the prompt that is used if none is asked for.
    """

    transformer: Path
    head: Head | None = None
    max_length: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    default_prompt: str | None = None

    def prompt(self, name: str | None) -> str:
        """What is put before every text.

        Args:
          name: the name of a prompt; by default the directory's default.

        Returns:
          The prompt, empty if there is none.

        Raises:
          ValueError: no prompt has the name; names those there are.
        """
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise ValueError(f"{self.transformer} has no prompt {name!r}; it has: {known}")
        return self.prompts[name]


def read_sentence_modules(directory: Path) -> SentenceModules:
    """Reads what a directory says about its sentence encoder.

    Args:
      directory: a directory of sentence-transformers' form, or one with a transformer alone.

    Returns:
      What it says.

    Raises:
      ValueError: a file is missing or damaged, or a module is not supported; names it.
    """
    transformer, head = directory, None
    if (directory / "modules.json").is_file():
        kinds, paths = _modules(directory / "modules.json")
        transformer = paths[0]
        head = Head(
            _poolings(paths[1] / "config.json"),
            tuple(_dense(path) for kind, path in zip(kinds, paths, strict=True) if kind == "Dense"),
            unit=kinds[-1] == "Normalize",
        )
    settings = _read_optional(transformer / "sentence_bert_config.json")
    prompts = _read_optional(directory / "config_sentence_transformers.json")
    return SentenceModules(
        transformer,
        head,
        settings.get("max_seq_length"),
        bool(settings.get("do_lower_case", False)),
        prompts.get("prompts") or {},
        prompts.get("default_prompt_name"),
    )


def _read_optional(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}


def _modules(path: Path) -> tuple[list[str], list[Path]]:
    """The kinds of the listed modules, and their directories."""
    try:
        listed = [(module["type"], module["path"]) for module in read_json(path, kind=list)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no list of modules: {error!r}") from error
    kinds = [kind.rpartition(".")[2] for kind, _ in listed]
    _check_order(kinds, source=path)
    return kinds, [path.parent / directory for _, directory in listed]


def _check_order(kinds: Sequence[str], *, source: Path) -> None:
    inner = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if list(kinds[:2]) != ["Transformer", "Pooling"] or any(kind != "Dense" for kind in inner):
        raise ValueError(
            f"{source} lists {', '.join(kinds)}; supported are Transformer, Pooling, any number of "
            "Dense, and Normalize, in this order"
        )


def _poolings(path: Path) -> tuple[str, ...]:
    config = read_json(path)
    named = config.get("pooling_mode")
    if named is None:
        named = [name for flag, name in _FLAGS.items() if config.get(flag)]
    names = (named,) if isinstance(named, str) else tuple(named)
    if not names or not set(names) <= set(POOLINGS):
        raise ValueError(
            f"{path}: unsupported pooling {', '.join(names) or 'none'}; supported are "
            f"{', '.join(POOLINGS)}"
        )
    return names


def _dense(directory: Path) -> Dense:
    path = directory / "config.json"
    config = read_json(path)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = activation.rpartition(".")[2]
    if activation not in DENSE_ACTIVATIONS:
        raise ValueError(f"{path}: unsupported activation {activation}")
    if missing := [name for name in ("in_features", "out_features") if name not in config]:
        raise ValueError(f"{path} lacks {' and '.join(missing)}")
    return Dense(
        config["in_features"],
        config["out_features"],
        f"{directory.name}.linear",
        config.get("bias", True),
        activation,
    )
