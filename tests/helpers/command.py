"""Runs the real command, in processes of its own."""

import os
import subprocess
import sys

COMMAND = [sys.executable, "-c", "from asif_jax.cli import main; main()"]

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


def run(*arguments, command=COMMAND):
    environment = {**os.environ, "XLA_FLAGS": "", "COLUMNS": "200"}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment
    )


def succeed(*arguments):
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    return result


def fail(*arguments, command=COMMAND):
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
