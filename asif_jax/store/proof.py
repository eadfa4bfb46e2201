"""That a removal removed: the scores are those of a model without the pairs, the bytes are gone."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from asif_jax import methods
from asif_jax.core.anchors import Anchors
from asif_jax.methods.statistics import pair_means
from asif_jax.store.database import Store
from asif_jax.store.failures import told
from asif_jax.store.reading import open_anchors
from asif_jax.store.records import StoredPair, encode, line_of
from asif_jax.store.snapshots import Snapshot, StoredPairs, read_block

# Shorter strings are found in pairs that have nothing to do with them.
_TELLING = 16
_QUERIES = 256


class Scores(NamedTuple):
    """A comparison of scores.

    Attributes:
      compared: counts the scores.
      equal: says whether all are the same, bit for bit.
    """

    compared: int
    equal: bool


class FileSearch(NamedTuple):
    """A search through all files of a store.

    Attributes:
      patterns: counts what was looked for: embeddings, references and captions.
      files: counts the files that were searched.
      size: is that of all of them, in bytes.
      found: names the files that hold any of it.
    """

    patterns: int
    files: int
    size: int
    found: tuple[str, ...]


def compare_scores(found: Snapshot) -> Scores:
    """Compares a version's scores with those of a model that never held the removed pairs.

    Args:
      found: a version.

    Returns:
      The comparison: removed pairs and live ones, up to 256 of them, as queries of every modality.

    Raises:
      StoreError: the version is damaged.
    """
    anchors = open_anchors(found)
    never = Anchors(
        {
            m: jnp.where(anchors.live.reshape(-1, *(1,) * (a.ndim - 1)), a, 0)
            for m, a in anchors.embeddings.items()
        },
        anchors.live,
    )
    removed, live = np.flatnonzero(~found.live), np.flatnonzero(found.live)
    rows = np.concatenate([removed[: _QUERIES // 2], live[: _QUERIES - _QUERIES // 2]])
    method = methods.named(found.settings.method, found.settings.settings)
    queries = {m: pair_means(array[rows]) for m, array in anchors.embeddings.items()}

    def scores(pairs: Anchors) -> list[np.ndarray]:
        state = method.fit(pairs)
        sides = [method.represent(state, array, m) for m, array in queries.items()]
        return [np.asarray(method.score(state, a, b)) for a in sides for b in sides]

    first, second = scores(anchors), scores(never)
    equal = all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    return Scores(sum(score.size for score in first), equal)


def removed_bytes(found: Snapshot) -> list[bytes]:
    """What the removed pairs of a version are made of, beside what live ones hold as well.

    Args:
      found: a version, before compaction.

    Returns:
      Their embeddings in every modality, their lines of text, references and captions.

    Raises:
      StoreError: the version is damaged.
    """
    removed = {row: pair for row, pair in _all_pairs(found) if not found.live[row]}
    if not removed:
        return []
    rows = np.array(sorted(removed))
    patterns = set[bytes]()
    with told(found.url):
        for array in found.arrays.values():
            values = np.asarray(array[rows].read().result())
            vectors = values.reshape(-1, values.shape[-1])
            patterns |= {vector.tobytes() for vector in vectors if vector.any()}
    patterns |= _texts(removed.values())
    patterns = {pattern for pattern in patterns if len(pattern) >= _TELLING}
    starts, table = _table(patterns)
    for content in _live_bytes(found):
        patterns.difference_update(_patterns_in(content, starts, table))
    return sorted(patterns)


def search_bytes(store: Store, patterns: Iterable[bytes]) -> FileSearch:
    """Looks through every file of a store.

    Args:
      store: an open store.
      patterns: of 16 bytes or more.

    Returns:
      What was found.
    """
    starts, table = _table(patterns)
    found, size = [], 0
    with told(store.url):
        keys = sorted(store.root.list().result())
        for key in keys:
            content = store.root.read(key).result().value
            size += len(content)
            if any(True for _ in _patterns_in(content, starts, table)):
                found.append(key.decode())
    return FileSearch(sum(map(len, table.values())), len(keys), size, tuple(found))


def _table(patterns: Iterable[bytes]) -> tuple[np.ndarray, dict[int, list[bytes]]]:
    """The first eight bytes of patterns, as numbers: sorted, and which patterns have them."""
    table: dict[int, list[bytes]] = {}
    for pattern in patterns:
        table.setdefault(int.from_bytes(pattern[:8], "little"), []).append(pattern)
    return np.array(sorted(table), np.uint64), table


def _patterns_in(
    content: bytes, starts: np.ndarray, table: Mapping[int, list[bytes]]
) -> Iterator[bytes]:
    """The patterns that content holds: their first eight bytes are looked up at every place."""
    for shift in range(min(8, len(content))):
        words = np.frombuffer(content, np.uint64, (len(content) - shift) // 8, shift)
        for place in np.flatnonzero(np.isin(words, starts)).tolist():
            where = shift + 8 * place
            yield from (p for p in table[int(words[place])] if content.startswith(p, where))


def _all_pairs(found: Snapshot) -> Iterable[tuple[int, StoredPair]]:
    chunk = found.header.chunk
    for block in range(-(-len(found.live) // chunk)):
        for row, pair in enumerate(read_block(found, block), start=block * chunk):
            if pair is not None and row < len(found.live):
                yield row, pair


def _live_bytes(found: Snapshot) -> Iterator[bytes]:
    """What live pairs are made of, as a store keeps it."""
    pairs, chunk = StoredPairs(found), found.header.chunk
    for rows in np.split(pairs.rows, np.flatnonzero(np.diff(pairs.rows // chunk)) + 1):
        yield encode([pairs.at(row) for row in rows.tolist()])
        with told(found.url):
            for array in found.arrays.values():
                yield np.asarray(array[rows].read().result()).tobytes()


def _texts(pairs: Iterable[StoredPair]) -> set[bytes]:
    """The lines of pairs, and the strings in them."""
    texts = set[str]()
    for pair in pairs:
        items = (reference for _, references in pair.items for reference in references)
        texts |= {line_of(pair), pair.image, *pair.captions, *items}
    return {text.encode("utf-8", "surrogatepass") for text in texts}
