import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import text_checkpoints

from asif_jax.encoders.text.mpnet import MPNet, MPNetConfig, checkpoint_name, relative_bucket
from asif_jax.encoders.weights.published import with_weights

CONFIG = MPNetConfig(
    vocab_size=40,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=40,
    layer_norm_eps=1e-5,
)
erf = np.vectorize(math.erf)


def build(rngs):
    return MPNet(CONFIG, rngs=rngs)


@pytest.fixture(scope="module")
def tensors():
    return text_checkpoints.random_tensors(build, checkpoint_name)


@pytest.fixture(scope="module")
def model(tensors):
    return with_weights(build, tensors, checkpoint_name, source="x", unused=())


def oracle_bucket(distance):
    """T5's rule in exact arithmetic: far distances by powers of the square root of 2."""
    side, far = (16 if distance > 0 else 0), abs(distance)
    if far < 8:
        return side + far
    # far >= 8 * 2 ** (step / 2) if and only if its square is at least 64 * 2 ** step.
    step = max(step for step in range(8) if far**2 >= 64 * 2**step)
    return side + 8 + step


def test_buckets_match_exact_arithmetic():
    distances = np.arange(-600, 601)
    expected = [oracle_bucket(int(distance)) for distance in distances]
    assert relative_bucket(distances, 32).tolist() == expected


def oracle_tokens(tensors, ids):
    """MPNet in float64, of one sentence without padding."""
    t = {name: array.astype(np.float64) for name, array in tensors.items()}

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def layer_norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + CONFIG.layer_norm_eps)
        return x * t[f"{name}.weight"] + t[f"{name}.bias"]

    places = np.arange(len(ids))
    x = t["embeddings.word_embeddings.weight"][ids]
    x = layer_norm(
        x + t["embeddings.position_embeddings.weight"][places + 2], "embeddings.LayerNorm"
    )
    relative = t["encoder.relative_attention_bias.weight"]
    bias = np.array([[relative[oracle_bucket(int(k - q))] for k in places] for q in places])
    for index in range(CONFIG.num_hidden_layers):
        name = f"encoder.layer.{index}"
        heads = []
        q, k, v = (linear(x, f"{name}.attention.attn.{part}") for part in "qkv")
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            weights = np.exp(q[:, part] @ k[:, part].T / 2 + bias[..., head])
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        attended = linear(np.concatenate(heads, -1), f"{name}.attention.attn.o")
        x = layer_norm(x + attended, f"{name}.attention.LayerNorm")
        hidden = linear(x, f"{name}.intermediate.dense")
        hidden = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
        x = layer_norm(x + linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return x


@pytest.fixture(scope="module")
def batch():
    ids = np.random.default_rng(1).integers(2, 40, size=[3, 30]).astype(np.int32)
    mask = np.arange(30) < np.array([[30], [11], [1]])
    return np.where(mask, ids, 1), mask


def test_matches_oracle(model, tensors, batch):
    for row, ids, mask in zip(jax.jit(model)(*batch), *batch, strict=True):
        np.testing.assert_allclose(row[mask], oracle_tokens(tensors, ids[mask]), atol=2e-5)


def test_without_positions_of_any_kind_order_does_not_matter(tensors, batch):
    """Each kind alone makes it matter, so both are at work."""
    absolute, relative = (
        "embeddings.position_embeddings.weight",
        checkpoint_name(("relative", "embedding")),
    )
    ids = batch[0][:1, :9]
    everywhere = np.ones_like(ids, bool)
    changes = {}
    for kept in ((), (absolute,), (relative,)):
        flat = {name: np.zeros_like(tensors[name]) for name in {absolute, relative} - {*kept}}
        model = with_weights(build, tensors | flat, checkpoint_name, source="x", unused=())
        mirrored = model(ids[:, ::-1], everywhere)[:, ::-1]
        changes[kept] = np.abs(mirrored - model(ids, everywhere)).max()
    assert changes.pop(()) < 1e-5
    assert min(changes.values()) > 1e-2


def test_vmap(model, batch):
    ids, mask = (jnp.asarray(x) for x in batch)
    mapped = jax.jit(jax.vmap(lambda ids, mask: model(ids[None], mask[None])[0]))(ids, mask)
    np.testing.assert_allclose(mapped, jax.jit(model)(ids, mask), atol=1e-5)


def test_padding_changes_nothing(model, batch):
    ids, mask = batch
    wider = [(0, 0), (0, 8)]
    padded = np.pad(ids, wider, constant_values=1), np.pad(mask, wider)
    run = jax.jit(model)
    np.testing.assert_allclose(run(*padded)[:, :30][mask], run(ids, mask)[mask], atol=1e-5)
