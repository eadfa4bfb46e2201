import jax
import jax.numpy as jnp
import numpy as np
import pytest
import text_checkpoints

from asif_jax.encoders.text.clip import CLIPText, CLIPTextConfig, checkpoint_name
from asif_jax.encoders.text.siglip import SigLIPText
from asif_jax.encoders.weights.published import with_weights

CONFIG = CLIPTextConfig(
    vocab_size=40,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=10,
)


def build(rngs):
    return CLIPText(CONFIG, rngs=rngs)


@pytest.fixture(scope="module")
def tensors():
    return text_checkpoints.random_tensors(build, checkpoint_name)


@pytest.fixture(scope="module")
def model(tensors):
    return with_weights(build, tensors, checkpoint_name, source="x", unused=())


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(1).integers(0, 40, size=[3, 9]).astype(np.int32)


def oracle_tokens(tensors, ids):
    """CLIP's text tower in float64, of one sentence."""
    t = {name: array.astype(np.float64) for name, array in tensors.items()}

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def layer_norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + CONFIG.layer_norm_eps)
        return x * t[f"{name}.weight"] + t[f"{name}.bias"]

    x = t["embeddings.token_embedding.weight"][ids]
    x = x + t["embeddings.position_embedding.weight"][: len(ids)]
    for index in range(CONFIG.num_hidden_layers):
        name = f"encoder.layers.{index}"
        y = layer_norm(x, f"{name}.layer_norm1")
        q, k, v = (linear(y, f"{name}.self_attn.{part}_proj") for part in "qkv")
        heads = []
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            weights = np.tril(np.exp(q[:, part] @ k[:, part].T / 2))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        x = x + linear(np.concatenate(heads, -1), f"{name}.self_attn.out_proj")
        y = linear(layer_norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
        x = x + linear(y / (1 + np.exp(-1.702 * y)), f"{name}.mlp.fc2")
    return layer_norm(x, "final_layer_norm")


def test_matches_oracle(model, tensors, ids):
    result = jax.jit(model)(ids, np.ones_like(ids, bool))
    expected = [oracle_tokens(tensors, sentence) for sentence in ids]
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_a_token_knows_those_before_it_alone(model, ids):
    everywhere = np.ones_like(ids, bool)
    changed = ids.copy()
    changed[:, 5] = (changed[:, 5] + 1) % 40
    before, after = (model(x, everywhere) for x in (ids, changed))
    np.testing.assert_array_equal(after[:, :5], before[:, :5])
    assert (np.abs(after[:, 5:] - before[:, 5:]).max(axis=-1) > 1e-4).all()


def test_a_token_of_siglip_knows_all(tensors, ids):
    siglip = with_weights(
        lambda rngs: SigLIPText(CONFIG, rngs=rngs), tensors, checkpoint_name, source="x", unused=()
    )
    everywhere = np.ones_like(ids, bool)
    changed = ids.copy()
    changed[:, -1] = (changed[:, -1] + 1) % 40
    difference = np.abs(siglip(changed, everywhere) - siglip(ids, everywhere))
    assert (difference.max(axis=-1) > 1e-4).all()


def test_usual_sizes_may_be_left_out():
    assert CLIPTextConfig() == CLIPTextConfig(vocab_size=49408, max_position_embeddings=77)


def test_vmap(model, ids):
    ids = jnp.asarray(ids)
    mask = jnp.ones_like(ids, bool)
    mapped = jax.vmap(lambda ids, mask: model(ids[None], mask[None])[0])(ids, mask)
    np.testing.assert_allclose(mapped, model(ids, mask), atol=1e-5)
