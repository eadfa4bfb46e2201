"""The `asif-jax` command: parse, call, print. Everything it does is a function of the package."""

import difflib
import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from asif_jax.cli.building import Add, Demo, Embed
from asif_jax.cli.importing import Import
from asif_jax.cli.judging import Eval, Info, Tune
from asif_jax.cli.keeping import Compact, Diff, Export, Log, Name, Remove
from asif_jax.cli.options import UnusableSetting
from asif_jax.cli.printing import complain, let_nothing_fail_to_print
from asif_jax.cli.usage import Command, parse
from asif_jax.cli.using import Classify, Explain, Search

# What a command imports of the package waits until it runs, so that --help answers at once.

_GROUPS: Mapping[str, Mapping[str, type[Any]]] = {
    "build a model": {"demo": Demo, "embed": Embed, "add": Add, "import": Import},
    "use it": {"classify": Classify, "search": Search, "explain": Explain},
    "judge it": {"eval": Eval, "tune": Tune, "info": Info},
    "keep it": {
        "remove": Remove,
        "log": Log,
        "diff": Diff,
        "name": Name,
        "compact": Compact,
        "export": Export,
    },
}
_COMMANDS = {verb: command for group in _GROUPS.values() for verb, command in group.items()}

# What a shell reports of a program that nobody listened to any more: 128 and the signal.
_PIPE_CLOSED = 141


def main() -> None:
    """Runs the command line; bad input ends with one line on stderr and exit code 2."""
    # Only TPU and GPU users need to hear what JAX finds; log levels are read on import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    let_nothing_fail_to_print()
    try:
        try:
            _run(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has read enough; Python would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_PIPE_CLOSED)


def _run(words: Sequence[str]) -> None:
    command = None
    try:
        command = _parse(words)
        command.run()
    except BrokenPipeError:
        raise
    except (UnusableSetting, ValueError, OSError) as error:
        complain(_in_words(error))
        sys.exit(2)
    except KeyboardInterrupt:
        resumes = command is not None and command.resumes
        kept = "a rerun goes on from here" if resumes else "nothing was written"
        complain(f"interrupted; {kept}")
        sys.exit(130)


def _parse(words: Sequence[str]) -> Command:
    """The command that the words ask for; help and version are printed, and end the program."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(), file=sys.stdout if words else sys.stderr)
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(f"asif-jax {importlib.metadata.version('asif-jax')}")
        sys.exit(0)
    verb, *rest = words
    if verb not in _COMMANDS:
        near = difflib.get_close_matches(verb, _COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_COMMANDS)}"
        raise UnusableSetting(f"no command {verb!r}; {hint}")
    return parse(_COMMANDS[verb], verb, rest)


def _overview() -> str:
    lines = ["usage: asif-jax COMMAND ...", "", "Multimodal models without training."]
    for title, commands in _GROUPS.items():
        lines += ["", f"{title}:"]
        for verb, command in commands.items():
            summary = (command.__doc__ or "").splitlines()[0]
            lines.append(f"  {verb:10}{summary}")
    ending = "asif-jax COMMAND --help says the rest; asif-jax --version says which this is."
    return "\n".join([*lines, "", ending])


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
