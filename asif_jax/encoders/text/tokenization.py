"""From strings to token ids, padded to one of a few lengths."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_SHORTEST = 16
# A directory with any of these has a tokenizer.
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_QUIET = "TRANSFORMERS_NO_ADVISORY_WARNINGS"


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Turns strings into the batch that a text encoder requires.

    Attributes:
      fast: is a tokenizer of transformers.
      limit: is the largest number of tokens of a text; longer texts are cut.
      prompt: is put before every text.
      lower_case: says whether texts are lower-cased first.
      full: says whether all texts are padded to the limit, with padding that counts as text.
    """

    fast: Any
    limit: int
    prompt: str = ""
    lower_case: bool = False
    full: bool = False

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenizes texts.

        Args:
          texts: strings, of which surrounding blanks are dropped.

        Returns:
          "ids", [batch, length] int32, and "mask", [batch, length] bool, false where a text is
          padded. The length is the least among 16, 32, 64, ... and the limit that holds them all.
        """
        texts = [f"{self.prompt}{text}".strip() for text in texts]
        texts = [text.lower() for text in texts] if self.lower_case else texts
        encoded = self.fast(texts, truncation=True, max_length=self.limit)["input_ids"]
        longest = max([_SHORTEST, *(len(ids) for ids in encoded)])
        # Powers of two, so that few programs are compiled.
        length = self.limit if self.full else min(self.limit, 1 << (longest - 1).bit_length())
        ids = np.full([len(encoded), length], self.fast.pad_token_id or 0, np.int32)
        mask = np.full([len(encoded), length], self.full)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return {"ids": ids, "mask": mask}


def tokenizer_files(directory: Path) -> tuple[Path, ...]:
    """The files that define a checkpoint's tokenizer.

    Args:
      directory: the checkpoint's directory.

    Returns:
      Those present among the files that tokenizers are published in.

    Raises:
      ValueError: there is none; names the usual one.
    """
    files = tuple(directory / name for name in _FILES if (directory / name).is_file())
    if not files:
        raise ValueError(f"{directory / _FILES[0]} is missing, the checkpoint's tokenizer")
    return files


def fast_tokenizer(directory: Path) -> Any:
    """The tokenizer of transformers that a checkpoint was published with.

    Args:
      directory: the checkpoint's directory.

    Returns:
      The tokenizer.

    Raises:
      ValueError: it is missing or damaged.
    """
    files = tokenizer_files(directory)
    # transformers says on import that it found no PyTorch, which is as intended here.
    former = os.environ.get(_QUIET)
    os.environ[_QUIET] = "1"
    try:
        from transformers import AutoTokenizer
    finally:
        os.environ.pop(_QUIET) if former is None else os.environ.update({_QUIET: former})
    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise ValueError(f"{files[0]} gives no tokenizer: {error}") from error
