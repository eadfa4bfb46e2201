"""Image architectures, one a file."""
