"""Embeddings that were computed elsewhere, into a store; resumable, part by part.

`read_embedded` finds them on disk, and `import_into` writes them.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tqdm

from asif_jax.core.cosine import normalize
from asif_jax.data import Skipped
from asif_jax.data.sources.shards import locate
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedded_files import EmbeddedSet, read_embedded
from asif_jax.methods.statistics import pair_means
from asif_jax.store import Store, StoredPair
from asif_jax.store.commits import unit_rows
from asif_jax.store.jobs import Job, Outcome, outcomes, start_job, write_part
from asif_jax.store.sums import write_sums

_PART = 1 << 14

__all__ = ["EmbeddedSet", "check_dimensions", "import_into", "read_embedded"]


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
