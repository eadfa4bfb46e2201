"""Readers of published files: from a checkpoint to named tensors."""
