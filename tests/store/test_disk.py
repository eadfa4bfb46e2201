"""Disks that cannot be written to: an edit is refused, and the store holds what it held."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import edit_store
import stores
from unprivileged import UNPRIVILEGED

from asif_jax import store

_HELPERS = Path(__file__).parents[1] / "helpers"


def run(*command):
    """Runs one of the programs beside this file; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": f"{_HELPERS}:{_HELPERS.parents[1]}", "XLA_FLAGS": ""}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=environment, cwd=_HELPERS
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_folder_that_may_only_be_read(tmp_path):
    where = tmp_path / "store"
    stores.filled(where)
    before, paths = stores.everything(where), [where, *where.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        refused = run(*UNPRIVILEGED, sys.executable, "edit_store.py", where)
    finally:
        for path in paths:
            path.chmod(0o755)
    assert refused.keys() == edit_store.EDITS.keys()
    for edit, reason in refused.items():
        assert reason.startswith(f"{where}: no permission ("), (edit, reason)
    assert stores.everything(where) == before
    store.remove(store.open_store(where), [0])


def test_a_folder_that_may_not_be_read(tmp_path):
    where = tmp_path / "store"
    stores.filled(where)
    where.chmod(0)
    try:
        refused = run(*UNPRIVILEGED, sys.executable, "edit_store.py", where)
    finally:
        where.chmod(0o755)
    for reason in refused.values():
        assert reason.startswith(f"{where}: no permission (")


def small_disk(path, *command):
    """The command, with a disk of 800 KB at a path that no other process sees."""
    mount = 'mount -t tmpfs -o size=800k tmpfs "$0" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, path, *command]


def can_mount():
    """Whether this machine lets one mount a small disk; many containers do not."""
    with tempfile.TemporaryDirectory() as directory:
        return (
            bool(shutil.which("unshare"))
            and not subprocess.run(small_disk(directory, "true"), capture_output=True).returncode
        )


if can_mount():

    def test_a_full_disk(tmp_path):
        refused = run(*small_disk(tmp_path, sys.executable, "full_disk.py", tmp_path))
        assert refused.keys() == edit_store.EDITS.keys()
        for edit, reasons in refused.items():
            # First the data do not fit, then the manifest.
            assert len(reasons) > 3
            expected = f"{tmp_path / edit}: the disk is full; nothing of this was kept ("
            assert all(reason.startswith(expected) for reason in reasons), reasons
