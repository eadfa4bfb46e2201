"""Kinds of sources, one a file."""
