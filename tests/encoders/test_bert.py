import json
import math

import jax
import numpy as np
import oracle
import pytest
import safetensors.numpy
from flax import nnx

from asif_jax.encoders import BertConfig, SentenceBert
from asif_jax.encoders.bert import checkpoint_name, load_bert
from asif_jax.encoders.encoder import pure

erf = np.vectorize(math.erf)

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=32,
    max_position_embeddings=12,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
)


def random_tensors(seed=0):
    """A checkpoint by its published names, in PyTorch's layout."""
    _, state = nnx.split(nnx.eval_shape(lambda: SentenceBert(CONFIG, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    tensors = {}
    for path, leaf in nnx.to_flat_state(state):
        shape = leaf.get_value().shape
        shape = shape[::-1] if path[-1] == "kernel" else shape
        tensors[checkpoint_name(path)] = rng.normal(0.3, 0.5, size=shape).astype(np.float32)
    return tensors


def save(directory, tensors, **changes):
    directory.mkdir(exist_ok=True)
    config = {**vars(CONFIG), "hidden_act": "gelu", **changes}
    (directory / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    return directory


def oracle_embeddings(tensors, ids, mask):
    """BERT and mean pooling in float64, one sentence after the other, unpadded."""
    t = {name: array.astype(np.float64) for name, array in tensors.items()}

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def layer_norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + CONFIG.layer_norm_eps)
        return x * t[f"{name}.weight"] + t[f"{name}.bias"]

    result = []
    for sentence, real in zip(ids, mask, strict=True):
        sentence = sentence[real]
        x = t["embeddings.word_embeddings.weight"][sentence]
        x = x + t["embeddings.position_embeddings.weight"][: len(sentence)]
        x = x + t["embeddings.token_type_embeddings.weight"][0]
        x = layer_norm(x, "embeddings.LayerNorm")
        for index in range(CONFIG.num_hidden_layers):
            name = f"encoder.layer.{index}"
            heads = []
            q, k, v = (
                linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value")
            )
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
        result.append(x.mean(axis=0))
    return oracle.unit(result)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    tensors = random_tensors()
    return pure(load_bert(save(tmp_path_factory.mktemp("bert"), tensors))), tensors


@pytest.fixture(scope="module")
def batch():
    ids = np.random.default_rng(1).integers(1, 50, size=[3, 8]).astype(np.int32)
    mask = np.arange(8) < np.array([[8], [5], [1]])
    return {"ids": np.where(mask, ids, 0), "mask": mask}


def test_matches_oracle(loaded, batch):
    (apply, params), tensors = loaded
    expected = oracle_embeddings(tensors, batch["ids"], batch["mask"])
    np.testing.assert_allclose(jax.jit(apply)(params, batch), expected, atol=2e-6)
    np.testing.assert_allclose(apply(params, batch), expected, atol=2e-6)


def test_padding_changes_nothing(loaded, batch):
    (apply, params), _ = loaded
    padded = {
        "ids": np.pad(batch["ids"], ((0, 0), (0, 4)), constant_values=9),
        "mask": np.pad(batch["mask"], ((0, 0), (0, 4))),
    }
    np.testing.assert_allclose(apply(params, padded), apply(params, batch), atol=1e-6)


def test_vmap_and_grad(loaded, batch):
    (apply, params), _ = loaded
    rows = jax.tree.map(lambda a: a[:, None], batch)
    mapped = jax.vmap(apply, in_axes=(None, 0))(params, rows)[:, 0]
    np.testing.assert_allclose(mapped, apply(params, batch), atol=1e-6)
    gradient = jax.grad(lambda params: apply(params, batch)[0, 0])(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_a_prefix_in_the_checkpoint_is_understood(tmp_path, batch):
    tensors = random_tensors()
    plain = load_bert(save(tmp_path / "plain", tensors))
    prefixed = {f"bert.{name}": array for name, array in tensors.items()}
    np.testing.assert_array_equal(load_bert(save(tmp_path / "pre", prefixed))(batch), plain(batch))


def test_missing_and_misshaped_tensors_are_named(tmp_path):
    tensors = random_tensors()
    name = "encoder.layer.1.output.dense.weight"
    misshaped = save(tmp_path / "a", {**tensors, name: np.zeros([3, 3], np.float32)})
    with pytest.raises(ValueError, match=rf"{name}.*\(3, 3\).*\(32, 16\)"):
        load_bert(misshaped)
    missing = save(tmp_path / "b", {n: a for n, a in tensors.items() if n != name})
    with pytest.raises(ValueError, match=f"lacks the tensor {name}"):
        load_bert(missing)


def test_truncated_weights_are_named(tmp_path):
    directory = save(tmp_path / "a", random_tensors())
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors is cut short"):
        load_bert(directory)
    path.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        load_bert(directory)


def test_unsupported_configurations_are_named(tmp_path):
    with pytest.raises(ValueError, match="relu"):
        load_bert(save(tmp_path / "a", random_tensors(), hidden_act="relu"))
    with pytest.raises(ValueError, match="lacks vocab_size"):
        BertConfig.from_mapping({name: 1 for name in vars(CONFIG) if name != "vocab_size"})
