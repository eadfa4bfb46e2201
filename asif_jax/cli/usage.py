"""From words on the command line to a command: tyro parses, and what it refuses is one line."""

import contextlib
import inspect
import io
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes

from asif_jax.cli.options import UnusableSetting

_FRAME = re.compile("[╭╮╰╯│]")
_RULE = re.compile("^─+$")
_NEAR = "Perhaps you meant:"
_NO_TYPE = re.compile(r"^Error parsing (--\S+): no type matching .*? from \[(.*?)\]\.")


class Command(Protocol):
    """What can be asked for: a frozen dataclass, whose fields tyro turns into options.

    Attributes:
      examples: command lines, for its help.
      resumes: whether a run that was interrupted goes on when it is started again.
    """

    examples: ClassVar[tuple[str, ...]]
    resumes: ClassVar[bool]

    def run(self) -> None:
        """Does it, and prints what came of it."""


def parse(command: type[Any], verb: str, words: Sequence[str]) -> Command:
    """Makes a command of the words that follow its verb; --help prints its help and exits.

    Args:
      command: the class of the command.
      verb: what it is called.
      words: the rest of the command line.

    Returns:
      The command.

    Raises:
      UnusableSetting: the words do not make one.
    """
    examples = "".join(f"\n  {line}" for line in command.examples)
    refused = io.StringIO()
    try:
        with contextlib.redirect_stderr(refused):
            return tyro.cli(
                command,
                prog=f"asif-jax {verb}",
                description=f"{inspect.getdoc(command)}\n\nexamples:{examples}",
                args=list(words),
                config=(OmitArgPrefixes, FlagCreatePairsOff),
            )
    except SystemExit as error:
        if not error.code:
            raise
        reason = in_one_line(refused.getvalue())
        raise UnusableSetting(f"{reason}; see asif-jax {verb} --help") from error


def in_one_line(box: str) -> str:
    r"""What tyro says in a box, without the box and without the help that follows.

    Args:
      box: as printed.

    Returns:
      One line.

    Example:
      >>> in_one_line("╭─ Required ─╮\n│ Missing:   │\n│   -o MODEL │\n│ ────────── │\n│ More │")
      'Missing: -o MODEL'
    """
    lines = [_FRAME.sub("", line).strip() for line in box.splitlines() if not line.startswith("╭")]
    ends = [number for number, line in enumerate(lines) if _RULE.match(line)] or [len(lines)]
    said = " ".join(" ".join(lines[: ends[0]]).split())
    if found := _NO_TYPE.match(said):
        # The reasons why none of several types fits are of no interest.
        return f"{found[1]} cannot be {found[2]}"
    if said.startswith("Missing from"):
        # The first of what is missing is enough, and its help is elsewhere.
        return f"missing: {lines[1]}"
    if _NEAR in lines[:-1]:
        return f"{said}; did you mean {lines[lines.index(_NEAR) + 1]}?"
    # Nothing is what an option is without being named.
    return re.sub("'None', |, 'None'", "", said).rstrip(" .")
