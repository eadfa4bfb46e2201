"""Comparisons with transformers' PyTorch models, collected only where PyTorch is installed."""

import importlib.util

collect_ignore_glob = ["*.py"] if importlib.util.find_spec("torch") is None else []
