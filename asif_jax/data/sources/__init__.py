"""Kinds of sources, one file each, which `table` lists; the other files here serve several."""
