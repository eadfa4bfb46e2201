"""Writers that get in each other's way, each with a handle of its own: STORE WRITERS EDITS.

Each tries an edit until it lands. Prints how often one was refused.
"""

import sys
import threading
from pathlib import Path

import numpy as np
import stores

from asif_jax import store
from asif_jax.store import Settings, StoreError
from asif_jax.store.commits import unit_rows
from asif_jax.store.jobs import Outcome, find_job, start_job, write_part


class Writer(threading.Thread):
    """Edits a store, with rows that no other writer removes; keeps what it must hold then."""

    def __init__(self, where, number, edits, rows):
        super().__init__()
        self.opened, self.number, self.edits = store.open_store(where), number, edits
        self.job = find_job(self.opened, "a")
        self.held, self.landed, self.refused = dict(rows), [], 0

    def run(self):
        rng = np.random.default_rng(self.number)
        kinds = [self.append, self.replace, self.replace, self.part, self.settings]
        for edit in range(self.edits):
            name = f"{self.number}-{edit}"
            kind = kinds[rng.integers(len(kinds))]
            while name not in self.landed:
                try:
                    kind(edit, name)
                    self.landed.append(name)
                except StoreError as error:
                    if "another writer changed it meanwhile" not in str(error):
                        raise
                    self.refused += 1

    def append(self, edit, name, gone=()):
        given, pairs = stores.embeddings(3, edit), stores.pairs(3, name)
        rows = store.replace(self.opened, gone, given, pairs, message=name)
        self.held |= dict(zip(rows, stores.expected_rows(given, pairs), strict=True))

    def replace(self, edit, name):
        gone = min(self.held)
        self.append(edit, name, [gone])
        del self.held[gone]

    def part(self, edit, name):
        pairs = stores.pairs(4, name)
        units = unit_rows(self.opened, stores.embeddings(4, edit), count=4)
        number = self.number * self.edits + edit
        write_part(self.opened, self.job, number, units, pairs, Outcome(4, 0, ()))
        first = self.job.first + self.job.span(number).start
        self.held |= dict(enumerate(stores.rows_of(units, pairs), start=first))

    def settings(self, edit, name):
        store.change_settings(self.opened, Settings("paper", {"k": edit}), message=name)


def main(where, count, edits):
    opened = stores.filled(where, count=3 * count)
    start_job(opened, identity="a", source="set", size=4 * count * edits, part=4)
    _, before = stores.newest(opened)
    mine = [{row: before[row] for row in before if row % count == i} for i in range(count)]
    writers = [Writer(where, number, edits, rows) for number, rows in enumerate(mine)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert all(len(writer.landed) == edits for writer in writers)
    expected = {row: what for writer in writers for row, what in writer.held.items()}
    again = store.open_store(where)
    assert stores.newest(again)[1] == expected
    log = store.log(again)
    assert len(log) == count * edits + 3
    assert log[0].pairs == len(expected) and log[-1].pairs == 0
    assert all(again.kv.read(key).result().value for key in again.kv.list().result())
    print(sum(writer.refused for writer in writers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
