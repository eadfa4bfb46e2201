"""From strings to the arrays that encoders take."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

# Texts are padded to one of these lengths, so that few programs are compiled.
_LENGTHS = (16, 32, 64, 128, 256, 512)
_QUIET = "TRANSFORMERS_NO_ADVISORY_WARNINGS"


def tokenizer(directory: Path) -> tuple[Callable[[Sequence[str]], dict[str, np.ndarray]], int]:
    """The tokenizer of a published text encoder.

    Args:
      directory: with tokenizer.json and, for sentence encoders, sentence_bert_config.json.

    Returns:
      Strings -> "ids", [batch, length] int32, and "mask", [batch, length] bool; and the largest
      length, in tokens.

    Raises:
      ValueError: no tokenizer in the directory.
    """
    if not (directory / "tokenizer.json").is_file():
        raise ValueError(f"{directory / 'tokenizer.json'} is missing")
    fast = _fast_tokenizer(directory)
    settings = directory / "sentence_bert_config.json"
    limit = json.loads(settings.read_bytes())["max_seq_length"] if settings.is_file() else 512

    def tokenize(texts: Sequence[str]) -> dict[str, np.ndarray]:
        encoded = fast(list(texts), truncation=True, max_length=limit)["input_ids"]
        longest = max((len(ids) for ids in encoded), default=1)
        length = min(limit, next(size for size in (*_LENGTHS, longest) if size >= longest))
        ids = np.full([len(encoded), length], fast.pad_token_id, np.int32)
        mask = np.zeros([len(encoded), length], bool)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return {"ids": ids, "mask": mask}

    return tokenize, limit


def _fast_tokenizer(directory: Path):
    # transformers says on import that it found no PyTorch, which is as intended here.
    former = os.environ.get(_QUIET)
    os.environ[_QUIET] = "1"
    try:
        from transformers import AutoTokenizer
    finally:
        os.environ.pop(_QUIET) if former is None else os.environ.update({_QUIET: former})
    return AutoTokenizer.from_pretrained(directory, local_files_only=True)
