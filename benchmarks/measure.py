"""How the benchmarks measure: in rounds, medians, peak memory from the system's own account."""

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax

Runs = Mapping[str, Callable[[], object]]


def machine() -> str:
    """The line that says what was measured on."""
    device = jax.devices()[0]
    return (
        f"{device.device_kind} x {jax.device_count()}, {os.cpu_count()} CPU cores, "
        f"{platform.machine()}, Python {platform.python_version()}, jax {jax.__version__}"
    )


def median_seconds(runs: Runs, *, repeats: int) -> dict[str, float]:
    """Median time of each run, after one that compiles.

    All are run in turn, round by round, so that a machine whose speed drifts is fair to all.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[1:]) for name, taken in seconds.items()}


def peak_bytes(compiled: jax.stages.Compiled, *arguments: object) -> int:
    """The most memory that a compiled program takes beyond its arguments; call it first.

    On a CPU that is measured, and includes what libraries that XLA calls allocate for themselves;
    elsewhere XLA's own account is taken.
    """
    if jax.default_backend() != "cpu":
        account = compiled.memory_analysis()
        return account.temp_size_in_bytes + account.output_size_in_bytes
    return host_peak_bytes(lambda: compiled(*arguments))


def host_peak_bytes(run: Callable[[], object]) -> int:
    """The most memory of the host that a call takes, its result included."""
    # What was freed before goes back to the system, which forgets the former peak when asked to.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    jax.block_until_ready(run())
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise ValueError(f"/proc/self/status has no {field}")


def print_table(header: list[str], rows: list[list[object]]) -> None:
    """Prints aligned columns: the first to the left, figures to the right."""
    cells = [header, *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        first, *rest = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]), flush=True)


def _text(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
