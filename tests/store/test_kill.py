"""The embedding job, killed at random moments.

A long form: PYTHONPATH=tests python tests/store/test_kill.py KILLS IMAGES
"""

import collections
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import kill_embedding
import numpy as np
import stores

from asif_jax import store
from asif_jax.jobs.embedding.into_store import job_identity
from asif_jax.store.jobs import find_job, outcomes

_HELPERS = Path(__file__).parents[1] / "helpers"


def start(where, size):
    environment = {**os.environ, "PYTHONPATH": f"{_HELPERS}:{_HELPERS.parents[1]}", "XLA_FLAGS": ""}
    command = [sys.executable, _HELPERS / "kill_embedding.py", where, str(size)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


def kill(where, size, progress, delay):
    """Kills the job when it has got so far, and some seconds later; returns whether it was killed.

    What comes out of it tells how far it is; the delay spreads kills over what lies in between.
    """
    process = start(where, size)
    while progress > 0 and (said := os.read(process.stdout.fileno(), progress)):
        progress -= len(said)
    timer = threading.Timer(delay, process.kill)
    timer.start()
    _, errors = process.communicate()
    timer.cancel()
    assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    return process.returncode != 0


def finish(where, size):
    process = start(where, size)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def history(opened):
    """The log from the first version on, but for the times."""
    return [version._replace(time=0) for version in reversed(store.log(opened))]


def done(opened, size):
    job = find_job(opened, job_identity(kill_embedding.image_set(size)))
    return outcomes(opened, job) if job else {}


class Truth:
    """What a job that nothing disturbs makes."""

    def __init__(self, where, size):
        finish(where, size)
        opened = store.open_store(where)
        self.size = size
        self.history, self.done = history(opened), done(opened, size)
        self.held = stores.held(store.snapshot(opened))
        # Nothing is missing, and what is left out is said.
        bad = {f"{i:06}.png" for i in range(7, size, 50)}
        images = [pair.image for pair, *_ in self.held.values()]
        assert sorted({*images, *bad}) == [f"{i:06}.png" for i in range(size)]
        assert len(images) + len(bad) == size
        assert {place for o in self.done.values() for place, _ in o.skipped} == bad
        assert len(self.done) == -(-size // kill_embedding.PART) == len(self.history) - 2

    def check(self, where):
        """A killed job has made the beginning of that, part by part; returns its versions."""
        if not store.is_store(where):
            return 0
        opened = store.open_store(where)
        versions, parts = history(opened), done(opened, self.size)
        assert versions == self.history[: len(versions)]
        assert parts == {number: self.done[number] for number in range(max(len(versions) - 2, 0))}
        rows = len(parts) * kill_embedding.PART
        held = stores.held(store.snapshot(opened))
        assert held == {row: what for row, what in self.held.items() if row < rows}
        return len(versions)

    def check_end(self, where):
        opened = store.open_store(where)
        assert stores.held(store.snapshot(opened)) == self.held
        assert (history(opened), done(opened, self.size)) == (self.history, self.done)


def kill_often(folder, *, kills, size, seed, say=lambda text: None):
    """Kills jobs so often in all, and lets them end; returns what the kills left behind.

    One job is killed over and over, from its beginning to its end. One in four kills is of another,
    while it makes its store; what the former ones left there is what the next one finds.
    """
    rng = np.random.default_rng(seed)
    truth, hit = Truth(folder / "undisturbed", size), collections.Counter()
    number, versions = {"old": 0, "young": 0}, {"old": 0, "young": 0}
    while hit.total() < kills:
        kind = "young" if rng.random() < 1 / 4 else "old"
        where = folder / f"{kind} {number[kind]}"
        left = size - max(versions[kind] - 2, 0) * kill_embedding.PART
        share = 2 * left // (kills - hit.total())
        progress, delay = int(rng.integers(0, share + 64)), rng.uniform(0, 0.02)
        # To make a store takes a hundredth of a second from the first sign of life.
        if not kill(where, size, 1 if kind == "young" else progress, delay):
            truth.check_end(where)
            number[kind], versions[kind] = number[kind] + 1, 0
            continue
        now = truth.check(where)
        assert now >= versions[kind], "a version that was there is gone"
        versions[kind] = now
        hit["no store" if not now else "no part" if now < 3 else "some parts"] += 1
        say(f"kill {hit.total()}, {where.name}: {now} of {len(truth.history)} versions")
        if kind == "young" and now:
            number[kind], versions[kind] = number[kind] + 1, 0
    for kind in number:
        where = folder / f"{kind} {number[kind]}"
        finish(where, size)
        truth.check_end(where)
        # There is nothing left to do.
        finish(where, size)
        truth.check_end(where)
    return hit


def test_killed_anywhere_a_job_ends_as_if_undisturbed(tmp_path):
    assert kill_often(tmp_path, kills=6, size=150, seed=0).total() == 6


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(
            kill_often(Path(name), kills=int(sys.argv[1]), size=int(sys.argv[2]), seed=1, say=print)
        )
