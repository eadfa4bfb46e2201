"""A model on disk: a directory with `model.json` and the file of arrays that it names.

The arrays are written first, under a new name, and then `model.json` is replaced in one step, so a
reader sees the former model or the new one, never half of either.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from asif_jax import anchors
from asif_jax.anchors import Anchors

_FORMAT = "asif-jax model"
_VERSION = 1


class EncoderRecord(NamedTuple):
    """Which encoder embedded a modality.

    Attributes:
      source: the name or path it was loaded by.
      identity: architecture, weights and preprocessing; the same string means the same embeddings.
    """

    source: str
    identity: str


class StoredPair(NamedTuple):
    """What a pair was made of.

    Attributes:
      image: the image file.
      captions: its captions.
    """

    image: str
    captions: tuple[str, ...]


class Model(NamedTuple):
    """A model and what is needed to use it.

    Attributes:
      anchors: the coupled embeddings; slot i belongs to pairs[i].
      pairs: the pairs, n of them.
      encoders: modality -> the encoder of its embeddings.
      k: similarities kept.
      p: exponent.
    """

    anchors: Anchors
    pairs: tuple[StoredPair, ...]
    encoders: Mapping[str, EncoderRecord]
    k: int
    p: float


def save(directory: Path, model: Model) -> None:
    """Writes a model, atomically; a model already there is replaced.

    Args:
      directory: where; created if need be.
      model: the model, all of whose slots are live.

    Raises:
      ValueError: the directory is there and holds something other than a model.
    """
    check_writable(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {m: np.asarray(a) for m, a in model.anchors.embeddings.items()}
    content = safetensors.numpy.save(arrays)
    digest = hashlib.sha256(content).hexdigest()
    arrays_name = f"anchors-{digest[:16]}.safetensors"
    write_atomically(directory / arrays_name, content)
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "arrays": {"file": arrays_name, "sha256": digest},
        "k": model.k,
        "p": model.p,
        "encoders": {m: record._asdict() for m, record in model.encoders.items()},
        "pairs": [pair._asdict() for pair in model.pairs],
    }
    text = json.dumps(header, ensure_ascii=False, indent=1)
    write_atomically(directory / "model.json", text.encode())
    for stale in set(directory.glob("anchors-*.safetensors")) - {directory / arrays_name}:
        stale.unlink()


def check_writable(directory: Path) -> None:
    """Refuses to write a model where something else is.

    Args:
      directory: where a model shall be written.

    Raises:
      ValueError: it is a file, or a directory that is neither empty nor a model.
    """
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file, not a model directory")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "model.json").is_file():
        raise ValueError(f"{directory} holds other files; name a new directory for the model")


def load(directory: Path) -> Model:
    """Reads a model.

    Args:
      directory: as given to `save`.

    Returns:
      The model.

    Raises:
      ValueError: the directory is not a model, is cut short or damaged, or is of a later version.
    """
    if not (directory / "model.json").is_file():
        raise ValueError(f"{directory} is not a model: it has no model.json")
    try:
        header = json.loads((directory / "model.json").read_bytes())
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise ValueError(f"{directory} is not a model: model.json is not one of asif-jax")
        if header["version"] != _VERSION:
            raise ValueError(
                f"{directory} is of format version {header['version']}, this is {_VERSION}"
            )
        pairs = tuple(StoredPair(p["image"], tuple(p["captions"])) for p in header["pairs"])
        encoders = {m: EncoderRecord(**record) for m, record in header["encoders"].items()}
        file, digest = header["arrays"]["file"], header["arrays"]["sha256"]
        k, p = int(header["k"]), float(header["p"])
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{directory / 'model.json'} is damaged: {error!r}") from error
    embeddings = _read_arrays(directory / Path(file).name, digest)
    if embeddings.keys() != encoders.keys():
        raise ValueError(f"{directory} is damaged: its arrays are {sorted(embeddings)}")
    if any(len(array) != len(pairs) for array in embeddings.values()):
        raise ValueError(f"{directory} is damaged: its arrays do not hold {len(pairs)} pairs")
    if not 1 <= k <= len(pairs):
        raise ValueError(f"{directory} is damaged: k = {k} with {len(pairs)} pairs")
    return Model(anchors.create(embeddings), pairs, encoders, k, p)


def _read_arrays(path: Path, digest: str) -> dict[str, np.ndarray]:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path.parent} is cut short: {path.name} is missing") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{path} is cut short or damaged: its checksum does not match")
    return safetensors.numpy.load(content)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is there as a whole or not at all, whatever happens meanwhile.

    Args:
      path: the file; one already there is replaced.
      content: what to write.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
