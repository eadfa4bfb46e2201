import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import text_checkpoints
from flax import nnx

from asif_jax.encoders.text.bert import BERT, BERTConfig, checkpoint_name
from asif_jax.encoders.weights.published import with_weights

erf = np.vectorize(math.erf)

CONFIG = BERTConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=32,
    max_position_embeddings=12,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
)


def build(rngs, dtype=jnp.float32):
    return BERT(CONFIG, dtype=dtype, rngs=rngs)


def oracle_tokens(tensors, ids):
    """BERT in float64, of one sentence without padding."""
    t = {name: array.astype(np.float64) for name, array in tensors.items()}

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def layer_norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + CONFIG.layer_norm_eps)
        return x * t[f"{name}.weight"] + t[f"{name}.bias"]

    x = t["embeddings.word_embeddings.weight"][ids]
    x = x + t["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + t["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(x, "embeddings.LayerNorm")
    for index in range(CONFIG.num_hidden_layers):
        name = f"encoder.layer.{index}"
        heads = []
        q, k, v = (linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        for head in np.split(np.arange(CONFIG.hidden_size), CONFIG.num_attention_heads):
            logits = q[:, head] @ k[:, head].T / np.sqrt(len(head))
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, head])
        x = layer_norm(
            x + linear(np.concatenate(heads, -1), f"{name}.attention.output.dense"),
            f"{name}.attention.output.LayerNorm",
        )
        hidden = linear(x, f"{name}.intermediate.dense")
        hidden = 0.5 * hidden * (1 + erf(hidden / np.sqrt(2)))
        x = layer_norm(x + linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return x


@pytest.fixture(scope="module")
def tensors():
    return text_checkpoints.random_tensors(build, checkpoint_name)


@pytest.fixture(scope="module")
def model(tensors):
    return with_weights(build, tensors, checkpoint_name, source="x", unused=())


@pytest.fixture(scope="module")
def batch():
    ids = np.random.default_rng(1).integers(1, 50, size=[3, 8]).astype(np.int32)
    mask = np.arange(8) < np.array([[8], [5], [1]])
    return np.where(mask, ids, 0), mask


def test_matches_oracle(model, tensors, batch):
    for run in (model, jax.jit(model)):
        result = run(*batch)
        for row, ids, mask in zip(result, *batch, strict=True):
            np.testing.assert_allclose(row[mask], oracle_tokens(tensors, ids[mask]), atol=1e-5)


def test_padding_changes_nothing(model, batch):
    ids, mask = batch
    padded = np.pad(ids, ((0, 0), (0, 4)), constant_values=9), np.pad(mask, ((0, 0), (0, 4)))
    run = jax.jit(model)
    result, longer = run(ids, mask), run(*padded)[:, :8]
    np.testing.assert_allclose(longer[mask], result[mask], atol=1e-5)


def test_vmap_and_grad(model, batch):
    graph, params = nnx.split(model)

    def apply(params, ids, mask):
        return nnx.merge(graph, params)(ids, mask)

    rows = [x[:, None] for x in batch]
    mapped = jax.jit(jax.vmap(apply, in_axes=(None, 0, 0)))(params, *rows)[:, 0]
    np.testing.assert_allclose(mapped, model(*batch), atol=1e-5)
    gradient = jax.jit(jax.grad(lambda params: apply(params, *batch)[0, 0, 0]))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


def test_half_precision_is_close(tensors, model, batch):
    half = with_weights(
        lambda rngs: build(rngs, jnp.bfloat16), tensors, checkpoint_name, source="x", unused=()
    )
    assert half.words.embedding.get_value().dtype == jnp.bfloat16
    result = jax.jit(half)(*batch)
    assert result.dtype == jnp.bfloat16
    ours = np.asarray(result, np.float64)[batch[1]]
    theirs = np.asarray(jax.jit(model)(*batch), np.float64)[batch[1]]
    cosines = (
        np.sum(ours * theirs, -1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    )
    assert cosines.min() > 0.999
