"""Small stores, pairs for them, and all that they hold."""

import json
import os

import numpy as np

from asif_jax import store
from asif_jax.core import anchors
from asif_jax.store import EncoderRecord, Header, StoredPair, StoredPairs
from asif_jax.store.jobs import find_job, outcomes

DIMENSIONS = {"image": 3, "text": 5}


def create(where, *, chunk=4, dtype="float32", dimensions=DIMENSIONS):
    encoders = {m: EncoderRecord(f"{m}-encoder", f"{m} 1") for m in dimensions}
    return store.create(where, Header(encoders, dimensions, dtype, chunk))


def embeddings(count, seed=0, dimensions=DIMENSIONS):
    rng = np.random.default_rng([count, seed])
    return {m: rng.normal(size=[count, d]).astype(np.float32) for m, d in dimensions.items()}


def embeddings_of(count, seed, dimensions):
    """Those of one seed; `embeddings` mixes the count into it."""
    rng = np.random.default_rng(seed)
    return {m: rng.normal(size=[count, d]).astype(np.float32) for m, d in dimensions.items()}


def pairs(count, name="pair"):
    return [StoredPair(f"{name}/{i}.png", (f"{name} Nº {i} 犬", "")) for i in range(count)]


def filled(where, count=6, **options):
    """A store of some pairs in its second version."""
    opened = create(where, **options)
    store.append(opened, embeddings(count, dimensions=opened.header.dimensions), pairs(count))
    return opened


def rows_of(units, pairs):
    """What rows hold: the pair, and the bits of its embeddings."""
    arrays = [np.asarray(units[modality]) for modality in sorted(units)]
    return [(pair, *(a[i].tobytes() for a in arrays)) for i, pair in enumerate(pairs)]


def expected_rows(given, pairs, dtype="float32"):
    """What a store must keep of embeddings: what a model keeps of them."""
    return rows_of(anchors.create(given, dtype=dtype).embeddings, pairs)


def held(found):
    """Live row -> what it holds."""
    pairs = StoredPairs(found)
    units = {m: np.asarray(a.read().result())[pairs.rows] for m, a in found.arrays.items()}
    return dict(zip(pairs.rows.tolist(), rows_of(units, list(pairs)), strict=True))


def newest(opened):
    """The number of the newest version, and what it holds."""
    found = store.snapshot(opened)
    return found.version, held(found)


def everything(where, jobs=()):
    """All that a store can be asked."""
    opened = store.open_store(where)
    found = [opened.header, store.row_count(opened), store.log(opened)]
    for version in found[-1]:
        past = store.snapshot(opened, version.number)
        blocks = range(-(-len(past.live) // opened.header.chunk))
        found.append([past.settings, past.live.tolist(), list(StoredPairs(past))])
        found.append([store.read_block(past, block) for block in blocks])
        embeddings = store.open_anchors(past).embeddings
        found.append([np.asarray(array).tobytes() for array in embeddings.values()])
    begun = [find_job(opened, identity) for identity in jobs]
    return [*found, begun, [job and outcomes(opened, job) for job in begun]]


def files(where):
    """The files of a store, by their names in it."""
    return {str(p.relative_to(where)): p for p in sorted(where.rglob("*")) if p.is_file()}


def databases(where):
    return sorted(name for name in os.listdir(where) if not name.startswith("asif-store.json"))


def pointer(where):
    return json.loads((where / "asif-store.json").read_text())
