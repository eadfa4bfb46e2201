"""Compacts a store and is killed on the way: STORE STAGE."""

import os
import signal
import sys
from pathlib import Path

from asif_jax import store
from asif_jax.store import compaction

STAGES = ("begun", "half", "copied", "moved")


def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)


def main(where, stage):
    pieces = compaction.live_parts

    def half(found, size):
        yield next(pieces(found, 4))
        die()

    replaced = {
        "begun": ("_copy", die),
        "half": ("live_parts", half),
        "copied": ("write_pointer", die),
        "moved": ("delete_others", die),
    }
    setattr(compaction, *replaced[stage])
    store.compact(store.open_store(where), progress=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
