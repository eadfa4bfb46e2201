"""Checkpoints from the Hugging Face hub: the files that an encoder needs, kept in its cache."""

import re
from pathlib import Path

_SETTINGS = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    # The modules of a sentence encoder, such as 1_Pooling.
    "[0-9]_*/*",
)
_SAFETENSORS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model-?????-of-?????.safetensors",
)
_PICKLES = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model-?????-of-?????.bin",
)


def is_hub_name(name: str) -> bool:
    """Whether a name has the form of a repository on the hub.

    Args:
      name: what a user asked for.

    Returns:
      True for "organization/name", with or without "@revision".

    Example:
      >>> is_hub_name("facebook/dino-vits16"), is_hub_name("models/local/vit")
      (True, False)
    """
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name))


def fetch(name: str, *, revision: str | None = None) -> Path:
    """Finds a checkpoint in the local cache of the hub, or downloads it there.

    The cache, the token and whether to stay offline are set as huggingface_hub documents: HF_HOME,
    HF_TOKEN, HF_HUB_OFFLINE.

    Args:
      name: "organization/name" or "organization/name@revision".
      revision: a branch, a tag or, to have the same weights forever, a commit.

    Returns:
      The directory.

    Raises:
      ValueError: two revisions; or the repository or revision does not exist, may not be read, or
        is neither cached nor to be reached. One line.
    """
    repository, _, pinned = name.partition("@")
    if pinned and revision not in (None, pinned):
        raise ValueError(f"{name}: at revision {pinned} or {revision}?")
    revision = pinned or revision
    directory = _download(repository, revision, (*_SETTINGS, *_SAFETENSORS))
    if not any(directory.glob("*.safetensors")):
        # The commit, so that both parts are of one version.
        directory = _download(repository, directory.name, (*_SETTINGS, *_PICKLES))
    return directory


def _download(repository: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    place = repository if revision is None else f"{repository} at revision {revision}"
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, revision=revision, allow_patterns=list(patterns)
            )
        )
    except errors.GatedRepoError as error:
        reason = "its owners ask to accept their terms on the hub, and for your HF_TOKEN"
        raise ValueError(f"{place} may not be read: {reason}") from error
    except errors.RepositoryNotFoundError as error:
        reason = "the hub has no such repository, or a private one that needs your HF_TOKEN"
        raise ValueError(f"{place} cannot be read: {reason}") from error
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{place}: the hub has no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        reason = "it is not, or not wholly, in the local cache, and the hub cannot be reached"
        raise ValueError(f"{place} cannot be read: {reason}") from error
    # Anything else a network may do, which comes as errors of the client's HTTP library.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or repr(error)
        raise ValueError(f"{place} cannot be read from the hub: {reason}") from error
