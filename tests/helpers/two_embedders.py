"""One of the two processes that test_into_store.py starts: INDEX COORDINATOR DIRECTORY."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import toy
import two_hosts
from jax.experimental import multihost_utils

from asif_jax import store
from asif_jax.data import read_set
from asif_jax.jobs.embedding.into_store import embed_into


def main(index: int, coordinator: str, directory: Path) -> None:
    two_hosts.join(index, coordinator)
    opened, images = store.open_store(directory / "together"), read_set(str(directory / "pairs"))
    options = {"part": 8, "batch": 4, "progress": False}
    runs = [embed_into(opened, images, toy.encoders(), **options) for _ in range(2)]
    mesh = jax.make_mesh((8,), ("pairs",))
    on_mesh = {"mesh": mesh, "anchors_axis": "pairs"}
    model = store.open_anchors(store.snapshot(opened), capacity=30, **on_mesh)
    arrays = {**model.embeddings, "live": model.live}
    # Every process must take part in gathering.
    arrays = {name: multihost_utils.process_allgather(a, tiled=True) for name, a in arrays.items()}
    np.savez(directory / f"{index}.npz", **arrays)
    said = {name: [getattr(run, name) for run in runs] for name in ("added", "present", "images")}
    said["skipped"] = [[[str(item.path), item.reason] for item in run.skipped] for run in runs]
    (directory / f"{index}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
