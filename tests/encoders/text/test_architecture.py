import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import text_checkpoints

from asif_jax import encoders
from asif_jax.encoders.layers.pooling import pool_tokens
from asif_jax.encoders.text import bert
from asif_jax.encoders.weights.config import sizes
from asif_jax.encoders.weights.published import with_weights

TEXTS = [*text_checkpoints.SENTENCES, ""]
CONFIG = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
MEAN = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}


def random_bert(config):
    return text_checkpoints.random_tensors(
        lambda rngs: bert.BERT(sizes(bert.BERTConfig, config), rngs=rngs), bert.checkpoint_name
    )


def save(directory, *, tensors=None, **changes):
    config = CONFIG | {"vocab_size": text_checkpoints.word_piece(directory)} | changes
    tensors = random_bert(config) if tensors is None else tensors
    return text_checkpoints.write(directory, config, tensors)


@pytest.fixture
def directory(tmp_path):
    return save(tmp_path / "model")


def tensors_of(directory):
    return safetensors.numpy.load_file(directory / "model.safetensors")


def replace_tensors(directory, tensors):
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    return directory


def embed(encoder, texts=TEXTS):
    return np.asarray(jax.jit(encoder.apply)(encoder.params, encoder.preprocess(texts)))


def load(directory, **options):
    return encoders.load(directory, modality="text", **options)


def test_a_transformer_alone_gives_the_mean_of_its_tokens(directory):
    encoder = load(directory)
    assert (encoder.modality, encoder.name, encoder.dimension) == ("text", "model", 16)
    config = json.loads((directory / "config.json").read_text())
    model = with_weights(
        lambda rngs: bert.BERT(sizes(bert.BERTConfig, config), rngs=rngs),
        tensors_of(directory),
        bert.checkpoint_name,
        source=directory,
    )
    batch = encoder.preprocess(TEXTS)
    for name, expected in {"mean": encoder, "cls": load(directory, pooling="cls")}.items():
        tokens = jax.jit(model)(batch["ids"], batch["mask"])
        np.testing.assert_allclose(
            embed(expected), pool_tokens(tokens, batch["mask"], [name]), atol=1e-5
        )


def modules(directory, *, pooling=MEAN, more=()):
    text_checkpoints.write_modules(
        directory, [("Transformer", "", None), ("Pooling", "1_Pooling", pooling), *more]
    )
    return directory


def test_modules_say_what_becomes_of_the_tokens(directory):
    plain = embed(load(directory))
    assert np.array_equal(embed(load(modules(directory))), plain)
    unit = embed(load(modules(directory, more=[("Normalize", "2_Normalize", None)])))
    lengths = np.linalg.norm(plain, axis=-1, keepdims=True)
    assert np.ptp(lengths) > 1e-3
    np.testing.assert_allclose(unit, plain / lengths, atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "names"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ["cls"]),
        ({"pooling_mode": "lasttoken"}, ["lasttoken"]),
        ({"pooling_mode": ["max", "mean"]}, ["max", "mean"]),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, ["max", "mean"]),
    ],
)
def test_poolings_are_read_in_either_form(directory, pooling, names):
    encoder = load(modules(directory, pooling=pooling))
    assert encoder.dimension == 16 * len(names)
    expected = [embed(load(directory, pooling=name)) for name in names]
    np.testing.assert_allclose(embed(encoder), np.concatenate(expected, axis=-1), atol=1e-6)


def test_dense_modules_are_applied_in_turn(directory):
    rng = np.random.default_rng(1)
    plain = embed(load(directory)).astype(np.float64)
    first = {
        "linear.weight": rng.normal(size=[6, 16]).astype(np.float32),
        "linear.bias": rng.normal(size=6).astype(np.float32),
    }
    second = {"linear.weight": rng.normal(size=[3, 6]).astype(np.float32)}
    tanh, identity = (f"torch.nn.modules.{kind}" for kind in ("activation.Tanh", "linear.Identity"))
    steps = [
        ("2_Dense", first, dict(in_features=16, out_features=6, activation_function=tanh)),
        (
            "3_Dense",
            second,
            dict(in_features=6, out_features=3, bias=False, activation_function=identity),
        ),
    ]
    modules(directory, more=[("Dense", path, config) for path, _, config in steps])
    for path, tensors, _ in steps:
        safetensors.numpy.save_file(tensors, directory / path / "model.safetensors")
    hidden = np.tanh(plain @ first["linear.weight"].T + first["linear.bias"])
    encoder = load(directory)
    assert encoder.dimension == 3
    np.testing.assert_allclose(embed(encoder), hidden @ second["linear.weight"].T, atol=1e-4)


def test_the_transformer_may_lie_in_a_directory_of_its_own(directory, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    directory.rename(root / "0_Transformer")
    listed = [("Transformer", "0_Transformer", None), ("Pooling", "1_Pooling", MEAN)]
    text_checkpoints.write_modules(root, listed)
    assert np.array_equal(embed(load(root)), embed(load(root / "0_Transformer")))


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["Transformer", "Pooling", "LSTM"], "lists Transformer, Pooling, LSTM; supported"),
        (["Transformer", "Pooling", "Normalize", "Dense"], "lists .*Dense; supported"),
        (["CLIPModel"], "lists CLIPModel; supported"),
        ([], "lists ; supported"),
    ],
)
def test_unsupported_modules_are_named(directory, kinds, message):
    text_checkpoints.write_modules(directory, [(kind, "", None) for kind in kinds])
    with pytest.raises(ValueError, match=rf"modules\.json {message}"):
        load(directory)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "holds a dict, not a list"),
        ("[{}]", "is no list of modules"),
        ("[", "cannot be read"),
    ],
)
def test_damaged_modules_are_named(directory, content, message):
    (directory / "modules.json").write_text(content)
    with pytest.raises(ValueError, match=rf"modules\.json {message}"):
        load(directory)


def test_a_dense_module_without_sizes_is_named(directory):
    modules(directory, more=[("Dense", "2_Dense", {"bias": True})])
    with pytest.raises(ValueError, match=r"config\.json lacks in_features and out_features"):
        load(directory)


@pytest.mark.parametrize("pooling", [{"pooling_mode": "attention"}, {}])
def test_unsupported_poolings_are_named(directory, pooling):
    with pytest.raises(ValueError, match=r"config\.json: unsupported pooling (attention|none);"):
        load(modules(directory, pooling=pooling))
    with pytest.raises(ValueError, match="unknown pooling 'attention'"):
        load(modules(directory), pooling="attention")


def settings(directory, name, content):
    (directory / name).write_text(json.dumps(content))


def test_the_length_is_what_files_and_positions_allow(directory):
    settings(directory, "sentence_bert_config.json", {"max_seq_length": 24})
    assert load(directory).preprocess.limit == 24
    settings(directory, "sentence_bert_config.json", {"max_seq_length": 999})
    assert load(directory).preprocess.limit == 40
    settings(directory, "sentence_bert_config.json", {"max_seq_length": None})
    assert load(directory).preprocess.limit == 40
    assert np.isfinite(embed(load(directory), ["word " * 100])).all()


def test_too_long_sentences_are_refused(directory):
    encoder = load(directory)
    ids = np.ones([1, 41], np.int32)
    with pytest.raises(ValueError, match="sentences of 41 tokens, where 40 are the most"):
        encoder.apply(encoder.params, {"ids": ids, "mask": ids > 0})


def test_prompts_precede_every_text(directory):
    plain = embed(load(directory), ["passage: " + text for text in TEXTS])
    prompts = {"query": "query: ", "document": "passage: "}
    content = {"prompts": prompts, "default_prompt_name": None}
    settings(directory, "config_sentence_transformers.json", content)
    assert np.array_equal(embed(load(directory, prompt="document")), plain)
    assert not np.array_equal(embed(load(directory)), plain)
    content["default_prompt_name"] = "document"
    settings(directory, "config_sentence_transformers.json", content)
    assert np.array_equal(embed(load(directory)), plain)
    with pytest.raises(ValueError, match="no prompt 'x'; it has: query, document"):
        load(directory, prompt="x")


def test_prefixes_heads_and_names_of_old_are_understood(directory):
    tensors, expected = tensors_of(directory), embed(load(directory))
    old = {
        f"bert.{name}".replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): array
        for name, array in tensors.items()
    }
    assert any(name.endswith("gamma") for name in old)
    heads = {
        "bert.pooler.dense.weight": np.zeros([16, 16], np.float32),
        "bert.embeddings.position_ids": np.zeros([1, 40], np.int64),
        "cls.predictions.bias": np.zeros(3, np.float32),
    }
    assert np.array_equal(embed(load(replace_tensors(directory, old | heads))), expected)


def test_missing_unexpected_and_misshaped_tensors_are_named(directory):
    tensors = tensors_of(directory)
    name = "encoder.layer.1.output.dense.weight"
    with pytest.raises(ValueError, match=rf"lacks the tensor {name}"):
        load(replace_tensors(directory, {n: a for n, a in tensors.items() if n != name}))
    with pytest.raises(ValueError, match=rf"{name}.*\(3, 3\).*\(24, 16\)"):
        load(replace_tensors(directory, {**tensors, name: np.zeros([3, 3], np.float32)}))
    surplus = "encoder.layer.2.output.dense.weight"
    with pytest.raises(ValueError, match=f"holds the tensor {surplus}"):
        load(replace_tensors(directory, {**tensors, surplus: tensors[name]}))


def test_truncated_and_missing_files_are_named(directory):
    weights = directory / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors is cut short"):
        load(directory)
    weights.write_bytes(content)
    for name, message in {
        "tokenizer.json": r"tokenizer\.json is missing",
        "config.json": r"config\.json is missing",
    }.items():
        kept = (directory / name).read_bytes()
        (directory / name).unlink()
        with pytest.raises(ValueError, match=message):
            load(directory)
        (directory / name).write_bytes(kept)
    (directory / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        load(directory)


def test_unsupported_configurations_are_named(tmp_path):
    tensors = {"x": np.zeros(1, np.float32)}
    with pytest.raises(ValueError, match=r"unsupported model_type 't5'; .*bert, .*mpnet, roberta"):
        load(save(tmp_path / "a", tensors=tensors, model_type="t5"))
    with pytest.raises(ValueError, match="relu"):
        load(save(tmp_path / "b", tensors=tensors, hidden_act="relu"))
    text_checkpoints.write(tmp_path / "b", {"model_type": "bert", "hidden_size": 4}, tensors)
    with pytest.raises(ValueError, match=r"config\.json: the configuration lacks vocab_size"):
        load(tmp_path / "b")


def test_half_precision_is_close_and_gives_float32(directory):
    full, half = load(directory), load(directory, dtype=jnp.bfloat16)
    ours, theirs = embed(half), embed(full)
    assert ours.dtype == np.float32
    kernels = [leaf for leaf in jax.tree.leaves(half.params) if leaf.ndim == 2]
    assert {leaf.dtype for leaf in kernels} == {jnp.dtype(jnp.bfloat16)}
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    assert (np.sum(ours * theirs, axis=-1) / lengths).min() > 0.999


def test_the_identity_tells_apart_whatever_changes_embeddings(directory, tmp_path):
    settings(directory, "config_sentence_transformers.json", {"prompts": {"q": "q "}})
    other = save(tmp_path / "other", tensors={n: a + 1 for n, a in tensors_of(directory).items()})
    wider = save(tmp_path / "wider", num_attention_heads=4)
    identities = [
        load(directory).identity,
        load(directory, pooling="cls").identity,
        load(directory, prompt="q").identity,
        load(directory, dtype=jnp.bfloat16).identity,
        load(other).identity,
        load(wider).identity,
    ]
    assert len(set(identities)) == len(identities)
    assert load(directory).identity == identities[0]


def test_vmap_and_grad(directory):
    encoder = load(directory)
    batch = jax.tree.map(jnp.asarray, encoder.preprocess(TEXTS))
    rows = jax.tree.map(lambda x: x[:, None], batch)
    mapped = jax.jit(jax.vmap(encoder.apply, in_axes=(None, 0)))(encoder.params, rows)[:, 0]
    np.testing.assert_allclose(mapped, encoder.apply(encoder.params, batch), atol=1e-5)
    gradient = jax.jit(jax.grad(lambda params: encoder.apply(params, batch)[0, 0]))(encoder.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
