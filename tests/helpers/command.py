"""Runs the command: in this process, or in one of its own where a test needs that.

Starting Python and importing JAX takes seconds. So a process of its own is for what only a process
has: signals, permissions, the environment at its start, and what is written past Python's streams.
"""

import contextlib
import io
import logging
import os
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jax

from asif_jax.cli import main

COMMAND = [sys.executable, "-c", "from asif_jax.cli import main; main()"]

# What the installation puts beside Python.
INSTALLED = [Path(sysconfig.get_path("scripts")) / "asif-jax"]


class Result(NamedTuple):
    """What a command did, as `subprocess.CompletedProcess` says it."""

    returncode: int
    stdout: str
    stderr: str


# The command, to which Ctrl-C comes as soon as a function of the package is done.
_INTERRUPTED = """
import importlib, signal, threading
from asif_jax.cli import main
# What a shell starts in the background is told to ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
module = importlib.import_module("{module}")
function = module.{name}
def then_interrupt(*arguments, **options):
    result = function(*arguments, **options)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    return result
module.{name} = then_interrupt
main()
"""


def interrupted_after(module, name):
    return [sys.executable, "-c", _INTERRUPTED.format(module=module, name=name)]


def run(*arguments, command=None):
    """Runs the command in this process; or another command, in a process of its own.

    What the command leaves uncaught is raised here. What it changes for a whole process is as
    before when it is done: the environment, JAX's configuration, what becomes of warnings.
    """
    if command:
        return run_process(*arguments, command=command)
    before = dict(jax.config.values)
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in "oe"]
    with (
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        mock.patch.object(sys, "argv", ["asif-jax", *map(str, arguments)]),
        mock.patch.dict(os.environ, COLUMNS="200"),
        _one_device(),
        _said_as_in_a_process(),
    ):
        try:
            main()
            code = 0
        except SystemExit as error:
            code = _code(error)
        finally:
            for name, value in dict(jax.config.values).items():
                if name in before and value != before[name]:
                    jax.config.update(name, before[name])
    return Result(code, *(stream.buffer.getvalue().decode() for stream in streams))


@contextlib.contextmanager
def _one_device():
    """What asks for all devices gets the first, as in a process of its own."""
    first = jax.local_devices()[:1]
    with contextlib.ExitStack() as stack:
        for name in ("devices", "local_devices"):
            stack.enter_context(mock.patch.object(jax, name, lambda *_, **__: list(first)))
        for name in ("device_count", "local_device_count"):
            stack.enter_context(mock.patch.object(jax, name, lambda *_, **__: 1))
        yield


@contextlib.contextmanager
def _said_as_in_a_process():
    """Warnings and logs go to stderr, from where pytest keeps them."""

    def show(message, category, filename, lineno, file=None, line=None):
        text = warnings.formatwarning(message, category, filename, lineno, line)
        (file or sys.stderr).write(text)

    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for quiet in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
            warnings.simplefilter("ignore", quiet)
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.showwarning = show
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)


def _code(error):
    """The exit code that an uncaught SystemExit gives a process."""
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    print(error.code, file=sys.stderr)
    return 1


def run_process(*arguments, command=COMMAND):
    """Runs a command in a process of its own, which has one device."""
    environment = {**os.environ, "XLA_FLAGS": "", "COLUMNS": "200"}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment
    )


def succeed(*arguments, command=None):
    result = run(*arguments, command=command)
    assert result.returncode == 0, result.stderr
    return result


def fail(*arguments, command=None):
    """Runs a command that must end with one clear line and exit code 2; returns the line."""
    result = run(*arguments, command=command)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.replace("\r", "\n").splitlines() if line.strip()]
    (line,) = [
        line for line in lines if "it/s" not in line and "/s]" not in line and "|" not in line
    ]
    assert line.startswith("asif-jax: ")
    return line
