"""Rivals that are trained, which the library has none of: heads on both sides."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from real_pairs import unit

from asif_jax.core.anchors import as_anchors
from asif_jax.methods import Method

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def heads(*, hidden: int | None, seed: int = 0, steps: int = 500) -> Method:
    """Heads trained by `contrastive`, in the form of the library's methods; it explains nothing."""

    def fit(pairs, sums=None) -> Score:
        anchors = as_anchors(pairs)
        live = np.asarray(anchors.live)
        images, texts = (np.asarray(anchors.embeddings[m])[live] for m in ("image", "text"))
        return contrastive(images, texts, hidden=hidden, seed=seed, steps=steps)

    def represent(state: Score, embeddings, modality: str) -> np.ndarray:
        return np.asarray(embeddings)

    def score(state: Score, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return state(left, right)

    def explain(state: Score, left, right):
        raise NotImplementedError("trained heads are no sum over pairs")

    settings = {"hidden": hidden, "seed": seed, "steps": steps}
    return Method(fit, represent, score, explain, lambda *_: None, "heads", settings)


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
