"""The methods by name: what a store and the command know them by. A new method is one line."""

from collections.abc import Callable, Mapping
from typing import Any

from asif_jax.methods.canonical_correlations import cca
from asif_jax.methods.canonical_similarity import csa
from asif_jax.methods.fusion import fused
from asif_jax.methods.hubness import with_csls
from asif_jax.methods.method import Method
from asif_jax.methods.orthogonal_procrustes import procrustes
from asif_jax.methods.recommended import best, two_cosines
from asif_jax.methods.relative_representations import asif, paper
from asif_jax.methods.ridge_regression import ridge
from asif_jax.methods.square_root import with_square_root

METHODS: Mapping[str, Callable[..., Method]] = {
    "best": best,
    "two_cosines": two_cosines,
    "paper": paper,
    "asif": asif,
    "cca": cca,
    "csa": csa,
    "procrustes": procrustes,
    "ridge": ridge,
}

# These take methods, which their settings name.
_COMBINATORS: Mapping[str, Callable[..., Method]] = {
    "fused": lambda methods, weights: fused(*(named(*m) for m in methods), weights=weights),
    "with_csls": lambda method, **settings: with_csls(named(*method), **settings),
    "with_square_root": lambda method: with_square_root(named(*method)),
}


def named(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method of a name, with settings.

    Args:
      name: one of `METHODS`, or of a method that a combinator gave.
      settings: as in `Method.settings`; those left out follow their rule.

    Returns:
      The method; `named(method.name, method.settings)` is that method again.

    Raises:
      ValueError: an unknown name, or settings that the method does not have.

    Example:
      >>> named("paper", {"k": 5}).settings
      {'k': 5}
    """
    make = {**METHODS, **_COMBINATORS}.get(name)
    if make is None:
        raise ValueError(f"no method {name!r}: there are {', '.join(METHODS)}")
    try:
        return make(**(settings or {}))
    except TypeError as error:
        raise ValueError(f"the method {name} does not take these settings: {settings}") from error
