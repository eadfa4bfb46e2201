"""What else couples two frozen encoders by pairs, each written from its paper.

Every method takes the training images [n, d] and one text [n, e] a pair, or their moments, and
returns a function from images [b, d] and texts [m, e] to scores [b, m].
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg
from real_pairs import unit

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def dense_relative(images: np.ndarray, texts: np.ndarray) -> Score:
    """Moschella et al., "Relative representations", ICLR 2023: cosines to all anchors, compared by
    their cosine.
    """  # noqa: D205
    images, texts = unit(images), unit(texts)
    return lambda x, y: unit(unit(x) @ images.T) @ unit(unit(y) @ texts.T).T


def nearest_captions(images: np.ndarray, texts: np.ndarray, *, k: int) -> Score:
    """The mean text of the k most similar training images stands for an image."""
    images, texts = unit(images), unit(texts)

    def score(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        similarities = unit(x) @ images.T
        nearest = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        return unit(texts[nearest].mean(axis=1)) @ unit(y).T

    return score


class Moments(NamedTuple):
    """Means and covariances of the unit embeddings of both sides: all that linear methods need."""

    image_mean: np.ndarray
    text_mean: np.ndarray
    images: np.ndarray
    texts: np.ndarray
    between: np.ndarray


def moments(images: np.ndarray, texts: np.ndarray) -> Moments:
    images, texts = (unit(side).astype(np.float64) for side in (images, texts))
    means = images.mean(axis=0), texts.mean(axis=0)
    x, y = images - means[0], texts - means[1]
    n = len(x)
    return Moments(*means, x.T @ x / n, y.T @ y / n, x.T @ y / n)


def ridge(pairs: Moments, *, penalty: float) -> Score:
    """A linear map of images to texts, (X'X + penalty * mean variance * n * I)^-1 X'Y, centred."""
    shrunk = _shrunk(pairs.images, penalty)
    return _mapped(pairs, scipy.linalg.solve(shrunk, pairs.between, assume_a="pos"))


def procrustes(pairs: Moments) -> Score:
    """Orthogonal Procrustes (Schoenemann 1966) on centred embeddings: the rotation UV' of X'Y."""
    left, _, right = np.linalg.svd(pairs.between, full_matrices=False)
    return _mapped(pairs, left @ right)


def _mapped(pairs: Moments, linear: np.ndarray) -> Score:
    """The cosine of texts and linearly mapped images, both centred."""

    def score(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return unit((unit(x) - pairs.image_mean) @ linear) @ unit(unit(y) - pairs.text_mean).T

    return score


class Cca(NamedTuple):
    """Canonical directions, [d, r] and [e, r], their correlations [r], and the moments."""

    images: np.ndarray
    texts: np.ndarray
    correlations: np.ndarray
    pairs: Moments

    def variates(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[b, r] and [m, r] canonical variates of embeddings."""
        x, y = unit(x) - self.pairs.image_mean, unit(y) - self.pairs.text_mean
        return x @ self.images, y @ self.texts


def fit_cca(pairs: Moments, *, shrinkage: float) -> Cca:
    """Regularized canonical correlation analysis: whiten both sides, then the SVD between them."""
    # A factor L of the covariance whitens as L^-1 x.
    x_factor, y_factor = (
        np.linalg.cholesky(_shrunk(side, shrinkage)) for side in (pairs.images, pairs.texts)
    )
    solve = functools.partial(scipy.linalg.solve_triangular, lower=True)
    between = solve(y_factor, solve(x_factor, pairs.between).T).T
    left, correlations, right = np.linalg.svd(between, full_matrices=False)
    x_directions = solve(x_factor, left, trans="T")
    return Cca(x_directions, solve(y_factor, right.T, trans="T"), correlations, pairs)


def csa(pairs: Moments, *, shrinkage: float, dimension: int | None = None) -> Score:
    """CSA (Li et al., ICLR 2025, section 4): the first canonical variates, normalized, and their
    inner product in which a coordinate counts as far as it correlates. The shrinkage is an addition
    without which it fails where dimensions are more than pairs.
    """  # noqa: D205
    cca = fit_cca(pairs, shrinkage=shrinkage)

    def score(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = (side[:, :dimension] for side in cca.variates(x, y))
        return (unit(x) * cca.correlations[:dimension]) @ unit(y).T

    return score


def weighted_cca(pairs: Moments, *, shrinkage: float) -> Score:
    """The cosine of canonical variates, each of both sides scaled by its correlation."""
    cca = fit_cca(pairs, shrinkage=shrinkage)

    def score(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = (unit(side * cca.correlations) for side in cca.variates(x, y))
        return x @ y.T

    return score


def contrastive(
    images: np.ndarray, texts: np.ndarray, *, hidden: int | None, seed: int, steps: int = 500
) -> Score:
    """Heads on both sides trained by the symmetric contrastive loss (CLIP, LiT).

    With `hidden` units they have two layers, and training pairs are mixed, both sides by the same
    share, as in FuseMix (Vouitsis et al., CVPR 2024, section 4.2). `texts` may be [n, c, e]: a
    caption a step is then drawn at random.
    """
    texts = texts if texts.ndim == 3 else texts[:, None]
    present = np.any(texts != 0, axis=-1)
    sides = (
        _standardized(images),
        _standardized(texts.reshape(-1, texts.shape[-1])[present.ravel()]),
    )
    x_all = jnp.asarray(sides[0](images))
    y_all = jnp.asarray(np.where(present[..., None], sides[1](texts), 0.0))
    counts = jnp.asarray(present.sum(axis=1))
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "images": _init(keys[0], x_all.shape[-1], hidden),
        "texts": _init(keys[1], y_all.shape[-1], hidden),
        "scale": jnp.log(jnp.float32(10.0)),
    }
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-3, steps), weight_decay=0.1)
    batch = min(512, max(len(images) // 2, 2))

    def loss(params, x, y):
        logits = jnp.exp(params["scale"]) * _head(params["images"], x) @ _head(params["texts"], y).T
        labels = jnp.arange(batch)
        entropy = optax.softmax_cross_entropy_with_integer_labels
        return (entropy(logits, labels) + entropy(logits.T, labels)).mean() / 2

    def step(state, key):
        params, moments = state
        pick, caption, mix, partner = jax.random.split(key, 4)
        rows = jax.random.choice(pick, len(x_all), [batch], replace=False)
        chosen = jax.random.randint(caption, [batch], 0, counts[rows])
        x, y = x_all[rows], y_all[rows, chosen]
        if hidden is not None:
            share = jax.random.beta(mix, 1.0, 1.0, [batch, 1])
            other = jax.random.permutation(partner, batch)
            x, y = (share * side + (1.0 - share) * side[other] for side in (x, y))
        updates, moments = optimizer.update(jax.grad(loss)(params, x, y), moments, params)
        return (optax.apply_updates(params, updates), moments), None

    start = params, optimizer.init(params)
    trained = jax.jit(lambda s, k: jax.lax.scan(step, s, k)[0][0])(
        start, jax.random.split(keys[2], steps)
    )

    def score(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        left = _head(trained["images"], sides[0](x))
        return np.asarray(left @ _head(trained["texts"], sides[1](y)).T)

    return score


def _init(key: jax.Array, width: int, hidden: int | None, out: int = 256) -> list[jax.Array]:
    sizes = [width, out] if hidden is None else [width, hidden, out]
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        jax.random.normal(k, (a, b)) / np.sqrt(a)
        for k, a, b in zip(keys, sizes, sizes[1:], strict=False)
    ]


def _head(layers: list[jax.Array], x: jax.Array) -> jax.Array:
    for layer in layers[:-1]:
        x = jax.nn.gelu(x @ layer)
    x = x @ layers[-1]
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)


def _standardized(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    rows = unit(rows)
    mean, deviation = rows.mean(axis=0), rows.std()
    return lambda x: (unit(x) - mean) / deviation


def _shrunk(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    d = len(covariance)
    return covariance + shrinkage * np.trace(covariance) / d * np.eye(d)
