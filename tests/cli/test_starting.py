import os

import jax
import pytest

from asif_jax.cli import starting

NAMES = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def configuration():
    before = {name: jax.config.values[name] for name in NAMES}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    starting.keep_compiled()
    assert jax.config.values[NAMES[0]] == str(tmp_path / "asif-jax" / "compiled")
    assert jax.config.values[NAMES[1]] < 1
    assert jax.config.values[NAMES[2]] == -1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    jax.config.update(NAMES[0], None)
    starting.keep_compiled()
    expected = tmp_path / "home" / ".cache" / "asif-jax" / "compiled"
    assert jax.config.values[NAMES[0]] == str(expected)


def test_another_folder_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update(NAMES[0], "elsewhere")
    starting.keep_compiled()
    assert jax.config.values[NAMES[0]] == "elsewhere"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    starting.keep_compiled()
    assert jax.config.values[NAMES[0]] is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    starting.keep_compiled()
    assert jax.config.values[NAMES[0]] is None
