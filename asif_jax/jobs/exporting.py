"""Embeddings as other programs keep them, from and to a store.

Three forms: `npy`, the folders `img_emb`, `text_emb` and `metadata` of clip-retrieval (.npy and
Parquet); `safetensors`, which keeps every bit; `folder`, the images themselves with metadata.jsonl,
to be embedded by anything.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy
import tqdm

from asif_jax.data import Skipped
from asif_jax.data.sources.parquet_rows import arrow
from asif_jax.store import Snapshot, StoredPair, live_parts

_ROWS = 1 << 16
_FOLDERS = {"image": "img_emb", "text": "text_emb"}


class _Part(NamedTuple):
    """Live pairs of a version.

    Attributes:
      number: of the part, from 0.
      units: modality -> [b, d] unit vectors.
      pairs: b of them.
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
      Pairs that were left out: in a folder those whose image is no file of its own.

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
    for modality, folder in _FOLDERS.items():
        path = place / folder / f"{folder}_{part.number}.npy"
        path.parent.mkdir(exist_ok=True)
        # NumPy's files know no bfloat16.
        np.save(path, part.units[modality].astype(np.float32))
    captions = [list(map(_in_utf8, pair.captions)) for pair in part.pairs]
    columns = {
        "image_path": [_in_utf8(pair.image) for pair in part.pairs],
        "caption": [several[0] for several in captions],
        "captions": captions,
    }
    path = place / "metadata" / f"metadata_{part.number}.parquet"
    path.parent.mkdir(exist_ok=True)
    pyarrow = arrow()
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return []


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
    lines = (json.dumps(pair._asdict(), ensure_ascii=False) for pair in part.pairs)
    content = "".join(f"{line}\n" for line in lines)
    (place / f"{name}.jsonl").write_bytes(content.encode("utf-8", "surrogatepass"))
    return []


def _write_folder(place: Path, part: _Part, found: Snapshot) -> list[Skipped]:
    skipped = []
    with (place / "metadata.jsonl").open("a", encoding="utf-8", errors="surrogatepass") as file:
        for number, pair in enumerate(part.pairs, start=part.number * _ROWS):
            source = Path(pair.image)
            # A thousand to a folder, under numbers: names may be the same in several folders.
            name = f"{number // 1000:05}/{number:08}{source.suffix}"
            (place / name).parent.mkdir(exist_ok=True)
            try:
                shutil.copyfile(source, place / name)
            except OSError as error:
                skipped.append(Skipped(source, f"not copied: {error.strerror}"))
                continue
            row = {"file_name": name, "captions": pair.captions, "source": pair.image}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return skipped


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
