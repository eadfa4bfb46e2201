"""Embeddings as other programs keep them, from and to a store.

There are three forms:

- `npy`: the folders `img_emb`, `text_emb` and `metadata` of clip-retrieval (.npy and Parquet), and
  `NAME_emb` for every further modality. Its readers expect one row for each pair, so of several
  captions the unit vector of their mean is written, and the table has all of them in words.
- `safetensors`: every embedding, that of each caption too, bit by bit.
- `folder`: the images themselves, and the files of further modalities, with a metadata.jsonl, to be
  embedded by anything.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tqdm

from asif_jax.core.cosine import normalize
from asif_jax.data import Skipped
from asif_jax.data.sources.parquet_rows import arrow
from asif_jax.methods.statistics import pair_means
from asif_jax.store import Snapshot, StoredPair, live_parts

_ROWS = 1 << 16


class _Part(NamedTuple):
    """Live pairs of a version.

    Attributes:
      number: is that of the part, from 0.
      units: maps each modality to [b, d] or [b, several, d] unit vectors.
      pairs: holds the b pairs.
    """

    number: int
    units: dict[str, np.ndarray]
    pairs: tuple[StoredPair, ...]


def export(
    found: Snapshot, directory: Path, *, form: str, progress: bool = True
) -> tuple[Skipped, ...]:
    """Writes the live pairs of a version to a new directory, which appears when it is complete.

    Args:
      found: the version.
      directory: a directory that is not there yet.
      form: "npy", "safetensors" or "folder".
      progress: show a progress bar on stderr.

    Returns:
      Pairs that were left out: in a folder those of which an item is no file of its own.

    Raises:
      ValueError: an unknown form, something is at the directory, or pyarrow is missing.
      OSError: it cannot be written.
    """
    if form not in _WRITERS:
        raise ValueError(f"form must be one of {', '.join(_WRITERS)}: got {form!r}")
    write = _WRITERS[form]
    total, skipped = int(found.live.sum()), []
    with _appearing(directory) as place:
        bar = tqdm.tqdm(total=total, disable=not progress, unit="pair", desc="exporting")
        with bar:
            for number, (units, pairs) in enumerate(live_parts(found, _ROWS)):
                part = _Part(number, units, pairs)
                skipped += write(place, part, found)
                bar.update(len(part.pairs))
    return tuple(skipped)


def _write_npy(place: Path, part: _Part, found: Snapshot) -> list[Skipped]:
    for modality, units in part.units.items():
        folder = folder_of(modality)
        path = place / folder / f"{folder}_{part.number}.npy"
        path.parent.mkdir(exist_ok=True)
        # NumPy's files know no bfloat16.
        np.save(path, _one_for_each(units).astype(np.float32))
    captions = [list(map(_in_utf8, pair.captions)) for pair in part.pairs]
    columns = {
        "image_path": [_in_utf8(pair.image) for pair in part.pairs],
        "caption": [several[0] for several in captions],
        "captions": captions,
    }
    for modality in found.header.dimensions:
        items = [dict(pair.items).get(modality) for pair in part.pairs]
        if any(items):
            columns[f"{modality}_path"] = [list(map(_in_utf8, named or ())) for named in items]
    path = place / "metadata" / f"metadata_{part.number}.parquet"
    path.parent.mkdir(exist_ok=True)
    pyarrow = arrow()
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return []


def folder_of(modality: str) -> str:
    """The folder that clip-retrieval keeps embeddings of a modality in, or would.

    Args:
      modality: its name.

    Returns:
      The name of the folder.

    Example:
      >>> folder_of("image"), folder_of("speech")
      ('img_emb', 'speech_emb')
    """
    return "img_emb" if modality == "image" else f"{modality}_emb"


def _one_for_each(units: np.ndarray) -> np.ndarray:
    """[b, d] unit vectors; of several, that of their mean, and a single one as it is."""
    if units.ndim == 2 or units.shape[1] == 1:
        return units.reshape(len(units), -1)
    means = np.asarray(normalize(pair_means(jnp.asarray(units))))
    single = ~np.any(units[:, 1:], axis=(1, 2))
    return np.where(single[:, None], units[:, 0], means)


def _in_utf8(text: str) -> str:
    """Parquet takes no lone surrogates, which names of files may have."""
    return text.encode("utf-8", "replace").decode()


def _write_safetensors(place: Path, part: _Part, found: Snapshot) -> list[Skipped]:
    units = {modality: np.ascontiguousarray(array) for modality, array in part.units.items()}
    encoders = {m: record._asdict() for m, record in found.header.encoders.items()}
    name = f"pairs-{part.number:05}"
    safetensors.numpy.save_file(
        units, place / f"{name}.safetensors", metadata={"encoders": json.dumps(encoders)}
    )
    lines = (json.dumps(_fields(pair), ensure_ascii=False) for pair in part.pairs)
    content = "".join(f"{line}\n" for line in lines)
    (place / f"{name}.jsonl").write_bytes(content.encode("utf-8", "surrogatepass"))
    return []


def _fields(pair: StoredPair) -> dict[str, Any]:
    """A pair as a line of JSON says it; "items" is there only if it has any."""
    items = {"items": dict(pair.items)} if pair.items else {}
    return {"image": pair.image, "captions": pair.captions} | items


def _write_folder(place: Path, part: _Part, found: Snapshot) -> list[Skipped]:
    skipped = []
    with (place / "metadata.jsonl").open("a", encoding="utf-8", errors="surrogatepass") as file:
        for number, pair in enumerate(part.pairs, start=part.number * _ROWS):
            try:
                named = _copy_files(place, number, pair)
            except OSError as error:
                skipped.append(Skipped(Path(error.filename), f"not copied: {error.strerror}"))
                continue
            row = named | {"captions": pair.captions, "source": pair.image}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return skipped


def _copy_files(place: Path, number: int, pair: StoredPair) -> dict[str, str | list[str]]:
    """Copies the files of a pair; which column of the metadata names which."""
    # A thousand to a folder, under numbers: names may be the same in several folders.
    stem = f"{number // 1000:05}/{number:08}"
    (place / stem).parent.mkdir(exist_ok=True)

    def copied(source: str, suffix: str) -> str:
        name = f"{stem}{suffix}{Path(source).suffix}"
        shutil.copyfile(source, place / name)
        return name

    named: dict[str, str | list[str]] = {"file_name": copied(pair.image, "")}
    for modality, sources in pair.items:
        names = [copied(one, f".{modality}{i or ''}") for i, one in enumerate(sources)]
        named[modality] = names[0] if len(names) == 1 else names
    return named


@contextlib.contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """A directory to fill under another name, which gets its own in one step."""
    if directory.exists():
        raise ValueError(f"{directory} is there already; name a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    place = directory.with_name(f".{directory.name}.{os.getpid()}")
    place.mkdir()
    try:
        yield place
        place.rename(directory)
    finally:
        shutil.rmtree(place, ignore_errors=True)


_WRITERS: dict[str, Callable[[Path, _Part, Snapshot], list[Skipped]]] = {
    "npy": _write_npy,
    "safetensors": _write_safetensors,
    "folder": _write_folder,
}
