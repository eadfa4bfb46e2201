"""One of the two processes that test_sharding.py starts: INDEX COORDINATOR DIRECTORY."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import two_hosts
from jax.experimental import multihost_utils

import asif_jax as asif


def main(index: int, coordinator: str, directory: Path) -> None:
    two_hosts.join(index, coordinator)
    mesh = jax.make_mesh((8,), ("pairs",))
    anchors = np.load(directory / "anchors.npy", mmap_mode="r")
    read = []

    def rows(start: int, stop: int) -> np.ndarray:
        read.append((start, stop))
        return anchors[start:stop]

    source = {"text": asif.sharding.Rows(anchors.shape, rows)}
    model = asif.sharding.place(source, mesh=mesh, anchors_axis="pairs")
    options = {"mesh": mesh, "anchors_axis": "pairs", "modality": "text", "k": 20}
    embeddings = np.load(directory / "embeddings.npy")
    found = asif.sharding.represent(embeddings, model, **options)
    scores = asif.sharding.similarity(found, found, mesh=mesh, gallery_axis="pairs")
    smaller = asif.anchors.remove(model, found.indices[0])
    fewer = asif.sharding.represent(embeddings, smaller, **options)
    arrays = {
        "values": found.values,
        "indices": found.indices,
        "scores": scores,
        "indices_after_removal": fewer.indices,
    }
    # Every process must take part in gathering.
    arrays = {name: multihost_utils.process_allgather(a, tiled=True) for name, a in arrays.items()}
    np.savez(directory / f"{index}.npz", **arrays)
    (directory / f"{index}.json").write_text(json.dumps(read))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
