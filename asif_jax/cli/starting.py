"""What a command does before it works: a word of what takes time, and JAX's cache of programs.

What is said goes to stderr, and only if that is a terminal: logs and programs need no such lines.
"""

import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asif_jax.cli.printing import escaped

# Quicker ones are the many small programs that nobody waits for.
_LONG_TO_LOWER = 0.05
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


def begin(message: str) -> None:
    """Says what is about to take time, then prepares JAX; for commands that compile.

    Args:
      message: what the command does first.
    """
    say(message)
    keep_compiled()
    _say_when_compiling()


def say(message: str) -> None:
    """Says what takes time.

    Args:
      message: a line, without its end.
    """
    if sys.stderr.isatty():
        print(escaped(message), file=sys.stderr, flush=True)


def say_loading(sources: Iterable[str]) -> None:
    """Says which encoders are loaded.

    Args:
      sources: their names or paths.
    """
    say(f"loading {' and '.join(sources)} …")


def cache_folder() -> Path:
    """Where the command keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asif-jax"


def keep_compiled() -> None:
    """Makes JAX keep compiled programs in the user's cache folder, unless it keeps them elsewhere.

    JAX_COMPILATION_CACHE_DIR says where else. A folder that cannot be written is no error.
    """
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    try:
        folder = cache_folder() / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        # Without a home there is no folder either.
        return
    if os.access(folder, os.W_OK | os.X_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _say_when_compiling() -> None:
    if sys.stderr.isatty():
        import jax

        jax.monitoring.register_event_duration_secs_listener(_say_what_is_lowered)


def _say_what_is_lowered(event: str, duration_secs: float, **about: Any) -> None:
    """When JAX has lowered something large, it compiles it next."""
    if event == _LOWERED and duration_secs > _LONG_TO_LOWER:
        _say_once("compiling …")


@functools.cache
def _say_once(message: str) -> None:
    say(message)
