"""Embeddings that were computed elsewhere, into a store; resumable, part by part.

It reads the folders `img_emb`, `text_emb` and `metadata` that clip-retrieval writes, with a folder
`NAME_emb` for every further modality, and what `exporting.export` writes as safetensors.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import tqdm

from asif_jax.core.cosine import normalize
from asif_jax.data import Skipped
from asif_jax.data.captions import clean_captions
from asif_jax.data.image_set import file_state, fingerprint
from asif_jax.data.sources.parquet_rows import arrow
from asif_jax.data.sources.shards import locate
from asif_jax.encoders import Encoder
from asif_jax.jobs.exporting import folder_of
from asif_jax.methods.statistics import pair_means
from asif_jax.store import EncoderRecord, Store, StoredPair
from asif_jax.store.commits import unit_rows
from asif_jax.store.jobs import Job, Outcome, outcomes, start_job, write_part
from asif_jax.store.sums import write_sums

_PART = 1 << 14
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


def check_dimensions(found: EmbeddedSet, encoders: Mapping[str, Encoder]) -> None:
    """Refuses embeddings that cannot be those of the encoders that they are said to be of.

    Args:
      found: from `read_embedded`.
      encoders: modality -> the encoder, for those modalities whose encoder can be loaded.

    Raises:
      ValueError: a modality is missing, or its embeddings are of another dimension.
    """
    for modality, encoder in encoders.items():
        d = found.dimensions.get(modality)
        if d is None:
            raise ValueError(f"{found.source} holds no embeddings of the modality {modality!r}")
        if d != encoder.dimension:
            raise ValueError(
                f"{found.source} holds {modality} embeddings of {d} dimensions, but {encoder.name} "
                f"gives {encoder.dimension}"
            )


def import_into(
    store: Store,
    found: EmbeddedSet,
    encoders: Mapping[str, Encoder] | None = None,
    *,
    progress: bool = True,
) -> tuple[int, tuple[Skipped, ...]]:
    """Writes embeddings into a store; a rerun goes on where the former run stopped.

    Args:
      store: an open store, of the same encoders.
      found: from `read_embedded`.
      encoders: modality -> its encoder, where it can be loaded, for `check_dimensions`.
      progress: show a progress bar on stderr.

    Returns:
      How many pairs the store holds of the set, and what was left out.

    Raises:
      ValueError: the embeddings are of other dimensions.
      StoreError: another process does the same, or the store cannot be written.
    """
    check_dimensions(found, encoders or {})
    if dict(found.dimensions) != dict(store.header.dimensions):
        raise ValueError(
            f"{store.url} takes embeddings of {dict(store.header.dimensions)}: "
            f"{found.source} holds {dict(found.dimensions)}"
        )
    about = {"identity": found.identity, "source": str(found.source.resolve())}
    job = start_job(store, **about, size=found.size, part=_PART)
    done = outcomes(store, job)
    ends = np.cumsum(found.sizes)
    # Neighbouring parts are often of one file.
    cached = dataclasses.replace(
        found,
        arrays=functools.lru_cache(1)(found.arrays),
        pairs=functools.lru_cache(1)(found.pairs),
    )
    with tqdm.tqdm(total=found.size, disable=not progress, unit="pair", desc="importing") as bar:
        for number in range(job.parts):
            span = job.span(number)
            if number not in done:
                _import_part(store, cached, job, number, ends)
            bar.update(len(span))
    if len(done) < job.parts:
        write_sums(store)
    results = outcomes(store, job).values()
    skipped = [Skipped(Path(place), why) for result in results for place, why in result.skipped]
    return sum(result.added for result in results), tuple(skipped)


def _import_part(store: Store, found: EmbeddedSet, job: Job, number: int, ends: np.ndarray) -> None:
    span = job.span(number)
    arrays, pairs = _rows(found, span, ends)
    finite = np.ones(len(span), bool)
    for array in arrays.values():
        finite &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    usable = [pair if ok else "not finite" for pair, ok in zip(pairs, finite, strict=True)]
    skipped = [
        (f"{found.source}:{index}", pair)
        for index, pair in zip(span, usable, strict=True)
        if isinstance(pair, str)
    ]
    kept = [None if isinstance(pair, str) else pair for pair in usable]
    for array in arrays.values():
        array[~finite] = 0
    outcome = Outcome(len(kept) - len(skipped), 0, tuple(skipped))
    write_part(store, job, number, _as_kept(store, arrays), kept, outcome)


def _as_kept(store: Store, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Unit vectors of the store's dtype stay as they are, so that nothing is rounded twice."""
    rounding = 2**-7 if store.header.dtype == "bfloat16" else 2**-20
    count = len(next(iter(arrays.values())))
    arrays = {m: _in_shape(array, m, store) for m, array in arrays.items()}
    units = unit_rows(store, arrays, count=count)
    for modality, array in arrays.items():
        if array.dtype.name == store.header.dtype:
            squares = np.sum(np.square(array, dtype=np.float32), axis=-1)
            same = np.abs(squares - 1) < rounding
            units[modality] = np.where(same[..., None], array, units[modality])
    return units


def _in_shape(array: np.ndarray, modality: str, store: Store) -> np.ndarray:
    """Embeddings in the shape that a store keeps them in: several for each pair, or their mean."""
    if modality in store.header.several:
        return array[:, None] if array.ndim == 2 else array
    if array.ndim == 2 or array.shape[1] == 1:
        return array.reshape(len(array), -1)
    return np.asarray(pair_means(normalize(array)))


def _rows(
    found: EmbeddedSet, span: range, ends: np.ndarray
) -> tuple[dict[str, np.ndarray], list[StoredPair | str]]:
    """Rows of a set, copied out of the files they lie in."""
    parts: dict[str, list[np.ndarray]] = {modality: [] for modality in found.dimensions}
    pairs: list[StoredPair | str] = []
    start = span.start
    while start < span.stop:
        file, first = locate(ends, start)
        count = min(span.stop, int(ends[file])) - start
        for modality, array in found.arrays(file).items():
            parts[modality].append(array[first : first + count])
        pairs += found.pairs(file)[first : first + count]
        start += count
    return {modality: _joined(arrays) for modality, arrays in parts.items()}, pairs


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays one below the other; where a file has fewer captions, zeros fill up."""
    if arrays[0].ndim == 2:
        return np.concatenate(arrays)
    most = max(array.shape[1] for array in arrays)
    return np.concatenate(
        [np.pad(array, ((0, 0), (0, most - array.shape[1]), (0, 0))) for array in arrays]
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
