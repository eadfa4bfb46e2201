"""A store on a disk that is full: DISK, empty and small. Prints why edits are refused.

Edits are tried with ever more room. Until there is enough, the store must hold what it held before.
"""

import json
import os
import sys
from pathlib import Path

import edit_store
import stores

from asif_jax import store


def main(disk):
    refused = {}
    for edit in edit_store.EDITS:
        where, filler = disk / edit, disk / "filler"
        stores.filled(where, count=300)
        before = stores.everything(where)
        refused[edit] = []
        for room in range(0, 200_000, 4096):
            fill(disk, filler, room)
            reason = edit_store.refusal(where, edit)
            if not reason:
                break
            refused[edit].append(reason)
            check(where, before)
        filler.unlink()
        # The store goes on: the edit that found room has landed, and so does another.
        opened = store.open_store(where)
        assert store.snapshot(opened).version > before[2][0].number
        store.append(opened, stores.embeddings(9, 2), stores.pairs(9, "late"))
        store.delete(opened)
    print(json.dumps(refused))


def fill(disk, filler, room):
    """Leaves some bytes of a disk free."""
    filler.unlink(missing_ok=True)
    with filler.open("wb") as file:
        while (left := free(disk) - room) > 0:
            file.write(bytes(left))
            file.flush()


def free(disk):
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def check(where, before):
    """A compaction that failed may have said so in versions of their own."""
    after = stores.everything(where)
    news = [version for version in after[2] if version not in before[2]]
    assert all(version.message.startswith("compaction") for version in news), news
    assert after[:2] == before[:2] and after[2][len(news) :] == before[2]
    assert after[3 + 3 * len(news) :] == before[3:]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
