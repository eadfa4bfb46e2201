"""The command."""

from asif_jax.cli.program import main

__all__ = ["main"]
