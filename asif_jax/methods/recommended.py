"""The method that we recommend: the sum of two cosines, corrected for hubs.

One cosine compares canonical variates, which see what is linear in all pairs at once; the other
compares relative representations in a whitened space, which see the nearest pairs. Their errors are
different, so their sum is better than either (see the table in the README).
"""

from collections.abc import Mapping

from asif_jax.core.nearest import DEFAULT_MEMORY
from asif_jax.methods.canonical_correlations import cca
from asif_jax.methods.fusion import fused
from asif_jax.methods.hubness import with_csls
from asif_jax.methods.method import Method, given
from asif_jax.methods.relative_representations import asif
from asif_jax.methods.square_root import with_square_root

_BANK = 1000


def two_cosines(
    *,
    k: int | None = None,
    p: float | None = None,
    shrinkage: float | Mapping[str, float] | None = None,
    bank: int = _BANK,
    memory: int = DEFAULT_MEMORY,
) -> Method:
    """CCA and whitened ASIF on square roots of non-negative features, with CSLS.

    Args:
      k: similarities kept by `asif`; by default a rule of the number of pairs.
      p: exponent of `asif`; likewise.
      shrinkage: of the whitened space of `asif`; likewise.
      bank: how many pairs hubs are measured on.
      memory: bytes that a projection may use beside the pairs.

    Returns:
      The method.

    Example:
      >>> two_cosines(p=2.0).settings
      {'p': 2.0}
    """
    both = fused(cca(), asif(k=k, p=p, shrinkage=shrinkage, memory=memory))
    method = with_csls(with_square_root(both), bank=bank)
    settings = given(k=k, p=p, shrinkage=shrinkage, bank=None if bank == _BANK else bank)
    return method._replace(name="two_cosines", settings=settings)


def best() -> Method:
    """The method that we recommend at present. A store keeps its own name, `two_cosines`.

    Returns:
      The method, all settings by rules of the number of pairs.

    Example:
      >>> best().name
      'two_cosines'
    """
    return two_cosines()
