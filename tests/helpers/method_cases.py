"""Pairs that the tests of the methods share, and every method beside its oracle."""

import method_oracles as oracles
import numpy as np

from asif_jax import methods

# name -> (method, oracle).
TABLE = {
    "paper": (methods.paper(k=9, p=3.0), oracles.paper(k=9, p=3.0)),
    "paper by rule": (methods.paper(), oracles.paper()),
    "asif": (methods.asif(), oracles.asif()),
    "asif of few": (
        methods.asif(k=6, p=2.0, shrinkage=0.3),
        oracles.asif(k=6, p=2.0, shrinkage=0.3),
    ),
    "cca": (methods.cca(), oracles.cca()),
    "cca by side": (
        methods.cca(shrinkage={"image": 2.0, "speech": 1.0, "text": 0.1}),
        oracles.cca(shrinkage={"image": 2.0, "speech": 1.0, "text": 0.1}),
    ),
    "csa": (methods.csa(dimension=3), oracles.csa(dimension=3)),
    "procrustes": (methods.procrustes(), oracles.procrustes()),
    "ridge": (methods.ridge(penalty=0.5), oracles.ridge(penalty=0.5)),
    "fused": (
        methods.fused(methods.ridge(), methods.asif(k=7), weights=[0.5, 2.0]),
        oracles.fused(oracles.ridge(), oracles.asif(k=7), weights=[0.5, 2.0]),
    ),
    "with_csls": (
        methods.with_csls(methods.cca(), bank=10, neighbours=3),
        oracles.with_csls(oracles.cca(), bank=10, neighbours=3),
    ),
    "with_square_root": (
        methods.with_square_root(methods.cca()),
        oracles.with_square_root(oracles.cca()),
    ),
    "two_cosines": (methods.two_cosines(), oracles.two_cosines()),
}


def coupled(n, *, d=12, e=9, captions=None, seed=0, noise=0.5, speech=None):
    """Pairs with a common cause: images without negative entries, one or up to `captions` texts."""
    rng = np.random.default_rng(seed)
    # What a pair is about does not depend on the seed's maps, so that queries can be of the kind.
    maps = np.random.default_rng(99)
    cause = rng.normal(size=[n, 4])

    def side(width, *several):
        mean = cause @ maps.normal(size=[4, width]) + maps.normal(size=width)
        mean = mean.reshape(n, *(1,) * len(several), width)
        return mean + noise * rng.normal(size=[n, *several, width])

    pairs = {"image": np.abs(side(d)), "text": side(e, *([captions] if captions else []))}
    if captions:
        length = rng.integers(1, captions + 1, size=n)
        pairs["text"][np.arange(captions) >= length[:, None]] = 0.0
    if speech:
        pairs["speech"] = side(speech)
    return {m: array.astype(np.float32) for m, array in pairs.items()}


def dimensions(pairs):
    """The keywords of `coupled` for queries of the kind of some pairs."""
    return {"d": pairs["image"].shape[-1], "e": pairs["text"].shape[-1]}


def scores(method, state, queries):
    """[b, m] of images and texts."""
    sides = [method.represent(state, queries[m], m) for m in ("image", "text")]
    return np.asarray(method.score(state, *sides))
