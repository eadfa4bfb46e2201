"""Runs a program in two processes, as on two hosts with four devices each, that talk by gloo."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax


def run(program, directory):
    """Runs a program of this folder as INDEX COORDINATOR DIRECTORY, twice; both must succeed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    running = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name(program), str(index), coordinator, directory],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(errors)


def join(index, coordinator):
    """Makes this process one of the two."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, num_processes=2, process_id=index)
    assert (jax.process_count(), len(jax.devices()), len(jax.local_devices())) == (2, 8, 4)
