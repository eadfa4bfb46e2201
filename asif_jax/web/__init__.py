"""The local page and its printed form."""
