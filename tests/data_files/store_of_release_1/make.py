"""How this store was made, by the code at commit dd282c4 (PYTHONPATH there): make.py DIRECTORY."""

import json
import sys
from pathlib import Path

import numpy as np

from asif_jax import represent, similarity, store
from asif_jax.store import EncoderRecord, Header, Settings, StoredPair

DIMENSIONS = {"image": 6, "text": 4}


def embeddings(count, seed):
    rng = np.random.default_rng(seed)
    return {m: rng.normal(size=[count, d]).astype(np.float32) for m, d in DIMENSIONS.items()}


def main(directory):
    encoders = {m: EncoderRecord(f"{m}-encoder", f"{m} 1") for m in DIMENSIONS}
    header = Header(encoders, DIMENSIONS, "float32", 8)
    opened = store.create(directory / "store", header, settings=Settings(7, 3.0))
    pairs = [StoredPair(f"/photos/{i}.png", (f"Ding Nº {i} 犬", f"thing {i}")) for i in range(20)]
    store.append(opened, embeddings(20, 1), pairs)
    store.remove(opened, [3, 11])
    model, queries = store.load(directory / "store"), embeddings(5, 2)
    images, texts = (
        represent(queries[m], model.anchors, modality=m, k=model.k, p=model.p)
        for m in ("image", "text")
    )
    scores = np.asarray(similarity(images, texts)).tolist()
    said = {"k": model.k, "p": model.p, "scores": scores}
    (directory / "scores.json").write_text(json.dumps(said, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
