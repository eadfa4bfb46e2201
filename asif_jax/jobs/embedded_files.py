"""Embeddings in files, as other programs and `exporting` write them, read on demand.

These are the folders `img_emb`, `text_emb` and `metadata` that clip-retrieval writes, with a folder
`NAME_emb` for every further modality, and what `exporting.export` writes as safetensors.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from asif_jax.data.captions import clean_captions
from asif_jax.data.image_set import file_state, fingerprint
from asif_jax.data.sources.parquet_rows import arrow
from asif_jax.jobs.exporting import folder_of
from asif_jax.store import EncoderRecord, StoredPair

_REFERENCES = ("image_path", "url", "key", "image")


@dataclasses.dataclass(frozen=True)
class EmbeddedSet:
    """Embeddings on disk, with what they were made of.

    Attributes:
      source: is where they lie.
      identity: is a hash that changes when a file does.
      dimensions: maps each modality to the dimension of its embeddings.
      encoders: maps each modality to the encoder they say they are of; empty if they do not say.
      sizes: counts the pairs in each file.
      arrays: maps the place of a file to modality -> [n, d] or [n, several, d], mapped or read.
      pairs: maps the place of a file to what its pairs were made of, or why one is of no use.
      several: names the modalities with several embeddings for each pair.
    """

    source: Path
    identity: str
    dimensions: Mapping[str, int]
    encoders: Mapping[str, EncoderRecord]
    sizes: Sequence[int]
    arrays: Callable[[int], Mapping[str, np.ndarray]]
    pairs: Callable[[int], Sequence[StoredPair | str]]
    several: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The number of pairs."""
        return sum(self.sizes)


def read_embedded(source: Path) -> EmbeddedSet:
    """Finds embeddings on disk.

    Args:
      source: a folder with img_emb/, text_emb/ and metadata/, or with pairs-*.safetensors.

    Returns:
      The embeddings, read on demand.

    Raises:
      ValueError: neither is there, files are missing, or they do not fit each other.
    """
    if not source.is_dir():
        raise ValueError(f"no such folder: {source}")
    if any(source.glob("*.safetensors")):
        return _read_safetensors(source)
    if (source / "img_emb").is_dir():
        return _read_npy(source)
    raise ValueError(
        f"no embeddings in {source}: neither img_emb/, text_emb/ and metadata/ nor *.safetensors"
    )


def _read_npy(source: Path) -> EmbeddedSet:
    files, tables = _npy_files(source)
    rows = [arrow().parquet.read_metadata(table).num_rows for table in tables]
    arrays = {m: [_map_npy(path) for path in paths] for m, paths in files.items()}
    for modality, mapped in arrays.items():
        for path, array, count in zip(files[modality], mapped, rows, strict=True):
            if array.ndim != 2 or len(array) != count:
                raise ValueError(f"{path} is {array.shape}, and its metadata has {count} rows")
    return EmbeddedSet(
        source,
        _identity(source, [*(path for paths in files.values() for path in paths), *tables]),
        {m: mapped[0].shape[1] for m, mapped in arrays.items()},
        {},
        rows,
        lambda number: {m: mapped[number] for m, mapped in arrays.items()},
        lambda number: _table_pairs(tables[number], tuple(files)),
    )


def _npy_files(source: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """The files of every modality, and the tables beside them, number by number."""
    others = {path.name.removesuffix("_emb") for path in source.glob("*_emb")} - {"img", "text"}
    modalities = ("image", "text", *sorted(others))
    found = {m: _numbered(source / folder_of(m), "npy") for m in modalities}
    tables = _numbered(source / "metadata", "parquet")
    kinds = {folder_of(m): files for m, files in found.items()} | {"metadata": tables}
    counts = {name: len(files) for name, files in kinds.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"{source} does not hold as many files of each kind: {counts}")
    for name, files in kinds.items():
        for number in tables.keys() - files.keys():
            raise ValueError(f"{tables[number]} belongs to no file in {source / name}")
    return {m: list(files.values()) for m, files in found.items()}, list(tables.values())


def _map_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy file, or is cut short ({error})") from error


def _table_pairs(path: Path, modalities: Sequence[str]) -> list[StoredPair | str]:
    table = arrow().parquet.read_table(path)
    names = set(table.column_names)
    reference = next((name for name in _REFERENCES if name in names), None)
    captions = next((name for name in ("captions", "caption", "text") if name in names), None)
    if captions is None:
        raise ValueError(f"{path} has no column of captions: {sorted(names)}")
    count = table.num_rows
    images = table[reference].to_pylist() if reference else [f"{path}:{i}" for i in range(count)]
    cleaned = map(clean_captions, table[captions].to_pylist())
    named = {m: table[f"{m}_path"].to_pylist() for m in modalities[2:] if f"{m}_path" in names}
    items = [
        tuple((m, tuple(values[i])) for m, values in named.items() if values[i])
        for i in range(count)
    ]
    return [
        texts if isinstance(texts, str) else StoredPair(str(image), texts, item)
        for image, texts, item in zip(images, cleaned, items, strict=True)
    ]


def _read_safetensors(source: Path) -> EmbeddedSet:
    files = list(_numbered(source, "safetensors").values())
    headers = []
    for path in files:
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
                headers.append((shapes, json.loads((file.metadata() or {}).get("encoders", "{}"))))
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    forms = {m: (len(shape), shape[-1]) for m, shape in headers[0][0].items()}
    sizes = []
    for path, (shapes, _) in zip(files, headers, strict=True):
        counts = {shape[0] for shape in shapes.values()}
        same = {m: (len(shape), shape[-1]) for m, shape in shapes.items()} == forms
        if not same or len(counts) != 1 or any(rank not in (2, 3) for rank, _ in forms.values()):
            raise ValueError(f"{path} holds arrays of {shapes}, which do not fit the others")
        sizes.append(counts.pop())
    texts = [path.with_suffix(".jsonl") for path in files]
    return EmbeddedSet(
        source,
        _identity(source, [*files, *texts]),
        {m: d for m, (_, d) in forms.items()},
        {m: EncoderRecord(**record) for m, record in headers[0][1].items()},
        sizes,
        lambda number: safetensors.numpy.load_file(files[number]),
        lambda number: _line_pairs(texts[number], sizes[number]),
        tuple(m for m, (rank, _) in forms.items() if rank == 3),
    )


def _line_pairs(path: Path, count: int) -> list[StoredPair | str]:
    lines = path.read_bytes().decode("utf-8", "surrogatepass").split("\n")[:-1]
    if len(lines) != count:
        raise ValueError(f"{path} has {len(lines)} lines for {count} pairs")
    return [_pair_of(json.loads(line)) for line in lines]


def _pair_of(row: Mapping[str, Any]) -> StoredPair:
    items = row.get("items", {}).items()
    named = tuple((modality, tuple(references)) for modality, references in items)
    return StoredPair(row["image"], tuple(row["captions"]), named)


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """The files of a folder by the numbers that end their names, in order.

    Raises:
      ValueError: there are none, two have the same number, or one in between is missing.
    """

    def number(path: Path) -> tuple[int, str]:
        digits = re.search(r"\d+$", path.stem)
        return (int(digits.group()) if digits else -1, path.name)

    files = sorted(folder.glob(f"*.{suffix}"), key=number)
    if not files:
        raise ValueError(f"no .{suffix} files in {folder}")
    numbers = [number(path)[0] for path in files]
    if set(numbers) == {-1}:
        # Without numbers the names decide.
        return dict(enumerate(files))
    for former, latter, path in zip(numbers, numbers[1:], files[1:], strict=False):
        if former == latter:
            raise ValueError(f"{path} has the number of another file in {folder}")
        if latter != former + 1:
            raise ValueError(f"{folder} has no file of number {former + 1}, but {path.name}")
    return dict(zip(numbers, files, strict=True))


def _identity(source: Path, files: Sequence[Path]) -> str:
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path} is missing")
    return fingerprint((str(path.relative_to(source)), file_state(path)) for path in files)
