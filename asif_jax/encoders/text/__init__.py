"""Text architectures, one a file."""
