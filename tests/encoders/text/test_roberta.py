import jax
import jax.numpy as jnp
import numpy as np
import pytest
import text_checkpoints

from asif_jax.encoders.text.bert import BERT, BERTConfig, checkpoint_name
from asif_jax.encoders.text.roberta import RoBERTa, RoBERTaConfig, positions_after_padding
from asif_jax.encoders.weights.published import with_weights

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "layer_norm_eps": 1e-5,
    "type_vocab_size": 1,
}
PADDING = 1
CONFIG = RoBERTaConfig(**SIZES, max_position_embeddings=12, pad_token_id=PADDING)


def build(rngs):
    return RoBERTa(CONFIG, rngs=rngs)


@pytest.fixture(scope="module")
def tensors():
    return text_checkpoints.random_tensors(build, checkpoint_name)


@pytest.fixture(scope="module")
def model(tensors):
    return with_weights(build, tensors, checkpoint_name, source="x", unused=())


@pytest.fixture(scope="module")
def batch():
    ids = np.random.default_rng(1).integers(2, 40, size=[3, 8]).astype(np.int32)
    mask = np.arange(8) < np.array([[8], [5], [1]])
    return np.where(mask, ids, PADDING), mask


def test_it_is_a_bert_whose_positions_begin_after_the_padding(model, tensors, batch):
    name = "embeddings.position_embeddings.weight"
    shifted = {**tensors, name: tensors[name][PADDING + 1 :]}
    config = BERTConfig(**SIZES, max_position_embeddings=len(shifted[name]))
    bert = with_weights(
        lambda rngs: BERT(config, rngs=rngs), shifted, checkpoint_name, source="x", unused=()
    )
    ids, mask = batch
    ours, theirs = (jax.jit(each)(ids, mask) for each in (model, bert))
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=1e-5)


def test_positions_skip_padding_within_a_sentence():
    ids = jnp.array([[5, PADDING, 6, 7], [PADDING, PADDING, 5, 6]])
    assert positions_after_padding(ids, PADDING).tolist() == [[2, 1, 3, 4], [1, 1, 2, 3]]
    assert positions_after_padding(ids, 0).tolist() == [[1, 2, 3, 4], [1, 2, 3, 4]]


def test_the_longest_sentence_uses_the_last_position(model):
    assert CONFIG.longest == 10
    ids = np.full([1, CONFIG.longest], 5, np.int32)
    assert positions_after_padding(ids, PADDING).max() == CONFIG.max_position_embeddings - 1
    assert np.isfinite(model(ids, ids > 0)).all()


def test_padding_changes_nothing(model, batch):
    ids, mask = batch
    ids, mask = ids[:, :6], mask[:, :6]
    wider = [(0, 0), (0, 4)]
    padded = np.pad(ids, wider, constant_values=PADDING), np.pad(mask, wider)
    run = jax.jit(model)
    np.testing.assert_allclose(run(*padded)[:, :6][mask], run(ids, mask)[mask], atol=1e-5)
