"""Embeddings that were computed elsewhere, into a store; resumable, part by part.

Read are the folders `img_emb`, `text_emb`, `metadata` that clip-retrieval writes, and what
`exchange.export` writes as safetensors.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import tqdm

from asif_jax.data import Skipped
from asif_jax.data.captions import clean_captions
from asif_jax.data.image_set import file_state, fingerprint
from asif_jax.data.sources.parquet_rows import arrow
from asif_jax.data.sources.shards import locate
from asif_jax.store import EncoderRecord, Store, StoredPair
from asif_jax.store.commits import unit_rows
from asif_jax.store.jobs import Job, Outcome, outcomes, start_job, write_part

_PART = 1 << 14
_FOLDERS = {"image": "img_emb", "text": "text_emb"}
_REFERENCES = ("image_path", "url", "key", "image")


@dataclasses.dataclass(frozen=True)
class EmbeddedSet:
    """Embeddings on disk, with what they were made of.

    Attributes:
      source: where they lie.
      identity: a hash that changes when a file does.
      dimensions: modality -> d.
      encoders: modality -> the encoder they say they are of; none if they do not say.
      sizes: pairs in each file.
      arrays: number of a file -> modality -> [n, d], mapped or read.
      pairs: number of a file -> what its pairs were made of, or why one is of no use.
    """

    source: Path
    identity: str
    dimensions: Mapping[str, int]
    encoders: Mapping[str, EncoderRecord]
    sizes: Sequence[int]
    arrays: Callable[[int], Mapping[str, np.ndarray]]
    pairs: Callable[[int], Sequence[StoredPair | str]]

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


def import_into(
    store: Store, found: EmbeddedSet, *, progress: bool = True
) -> tuple[int, tuple[Skipped, ...]]:
    """Writes embeddings into a store; a rerun goes on where the former run stopped.

    Args:
      store: an open store, of the same encoders.
      found: from `read_embedded`.
      progress: show a progress bar on stderr.

    Returns:
      How many pairs the store holds of the set, and what was left out.

    Raises:
      ValueError: the embeddings are of other dimensions.
      StoreError: another process does the same, or the store cannot be written.
    """
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
    results = outcomes(store, job).values()
    skipped = [Skipped(Path(place), why) for result in results for place, why in result.skipped]
    return sum(result.added for result in results), tuple(skipped)


def _import_part(store: Store, found: EmbeddedSet, job: Job, number: int, ends: np.ndarray) -> None:
    span = job.span(number)
    arrays, pairs = _rows(found, span, ends)
    finite = np.all([np.isfinite(array).all(axis=1) for array in arrays.values()], axis=0)
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
    units = unit_rows(store, arrays, count=count)
    for modality, array in arrays.items():
        if array.dtype.name == store.header.dtype:
            squares = np.sum(np.square(array, dtype=np.float32), axis=1)
            same = np.abs(squares - 1) < rounding
            units[modality] = np.where(same[:, None], array, units[modality])
    return units


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
    return {modality: np.concatenate(arrays) for modality, arrays in parts.items()}, pairs


def _read_npy(source: Path) -> EmbeddedSet:
    files = {m: _numbered(source / folder, "npy") for m, folder in _FOLDERS.items()}
    tables = _numbered(source / "metadata", "parquet")
    if len({len(paths) for paths in (*files.values(), tables)}) != 1:
        counts = {m: len(paths) for m, paths in files.items()} | {"metadata": len(tables)}
        raise ValueError(f"{source} does not hold as many files of each kind: {counts}")
    rows = [arrow().parquet.read_metadata(table).num_rows for table in tables]
    arrays = {m: [_map_npy(path) for path in paths] for m, paths in files.items()}
    for modality, mapped in arrays.items():
        for path, array, count in zip(files[modality], mapped, rows, strict=True):
            if array.ndim != 2 or len(array) != count:
                raise ValueError(f"{path} is {array.shape}, and its metadata has {count} rows")
    return EmbeddedSet(
        source,
        _identity(source, [*files["image"], *files["text"], *tables]),
        {m: mapped[0].shape[1] for m, mapped in arrays.items()},
        {},
        rows,
        lambda number: {m: mapped[number] for m, mapped in arrays.items()},
        lambda number: _table_pairs(tables[number]),
    )


def _map_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy file, or is cut short ({error})") from error


def _table_pairs(path: Path) -> list[StoredPair | str]:
    table = arrow().parquet.read_table(path)
    names = set(table.column_names)
    reference = next((name for name in _REFERENCES if name in names), None)
    captions = next((name for name in ("captions", "caption", "text") if name in names), None)
    if captions is None:
        raise ValueError(f"{path} has no column of captions: {sorted(names)}")
    count = table.num_rows
    images = table[reference].to_pylist() if reference else [f"{path}:{i}" for i in range(count)]
    cleaned = map(clean_captions, table[captions].to_pylist())
    return [
        texts if isinstance(texts, str) else StoredPair(str(image), texts)
        for image, texts in zip(images, cleaned, strict=True)
    ]


def _read_safetensors(source: Path) -> EmbeddedSet:
    files = _numbered(source, "safetensors")
    headers = []
    for path in files:
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
                headers.append((shapes, json.loads((file.metadata() or {}).get("encoders", "{}"))))
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
    dimensions = {modality: shape[1] for modality, shape in headers[0][0].items()}
    sizes = []
    for path, (shapes, _) in zip(files, headers, strict=True):
        counts = {shape[0] for shape in shapes.values()}
        if {m: shape[1] for m, shape in shapes.items()} != dimensions or len(counts) != 1:
            raise ValueError(f"{path} holds arrays of {shapes}, which do not fit the others")
        sizes.append(counts.pop())
    texts = [path.with_suffix(".jsonl") for path in files]
    return EmbeddedSet(
        source,
        _identity(source, [*files, *texts]),
        dimensions,
        {m: EncoderRecord(**record) for m, record in headers[0][1].items()},
        sizes,
        lambda number: safetensors.numpy.load_file(files[number]),
        lambda number: _line_pairs(texts[number], sizes[number]),
    )


def _line_pairs(path: Path, count: int) -> list[StoredPair | str]:
    lines = path.read_bytes().decode("utf-8", "surrogatepass").split("\n")[:-1]
    if len(lines) != count:
        raise ValueError(f"{path} has {len(lines)} lines for {count} pairs")
    rows = map(json.loads, lines)
    return [StoredPair(row["image"], tuple(row["captions"])) for row in rows]


def _numbered(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder in the order of the numbers that end their names."""

    def number(path: Path) -> tuple[int, str]:
        digits = re.search(r"\d+$", path.stem)
        return (int(digits.group()) if digits else -1, path.name)

    files = sorted(folder.glob(f"*.{suffix}"), key=number)
    if not files:
        raise ValueError(f"no .{suffix} files in {folder}")
    return files


def _identity(source: Path, files: Sequence[Path]) -> str:
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path} is missing")
    return fingerprint((str(path.relative_to(source)), file_state(path)) for path in files)
