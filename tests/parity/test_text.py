"""Text encoders against PyTorch: the same directory, the same sentences, both chains whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import text_checkpoints
import torch
import transformers

from asif_jax import encoders
from asif_jax.encoders.packages import installed_weights
from asif_jax.encoders.text import mpnet

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LARGER = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}

# Model, configuration, tokenizer, and what they are built with; two of each.
CASES = {
    "bert": ("BertModel", "BertConfig", text_checkpoints.word_piece, SMALL),
    "bert-tanh": (
        "BertForMaskedLM",
        "BertConfig",
        text_checkpoints.word_piece,
        {**LARGER, "hidden_act": "gelu_new", "type_vocab_size": 1, "layer_norm_eps": 1e-5},
    ),
    "mpnet": ("MPNetModel", "MPNetConfig", text_checkpoints.word_piece, SMALL),
    "mpnet-masked": ("MPNetForMaskedLM", "MPNetConfig", text_checkpoints.byte_pairs, LARGER),
    "roberta": ("RobertaModel", "RobertaConfig", text_checkpoints.byte_pairs, SMALL),
    "roberta-masked": (
        "RobertaForMaskedLM",
        "RobertaConfig",
        text_checkpoints.byte_pairs,
        {**LARGER, "type_vocab_size": 1},
    ),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaConfig", text_checkpoints.unigrams, SMALL),
    "xlm-roberta-masked": (
        "XLMRobertaForMaskedLM",
        "XLMRobertaConfig",
        text_checkpoints.unigrams,
        LARGER,
    ),
}
# Real text: many scripts, an empty string, blanks, one longer than any limit.
TEXTS = [*text_checkpoints.SENTENCES, "", "  ", "a", "word " * 200, "🙂 e\u0301\u200b\n\ttab"]


def randomize(model, seed=0):
    """Weights far from their initial values, so that no part of the network is idle."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.25)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1.0)
    return model.eval()


@pytest.fixture(scope="module", params=CASES)
def checkpoint(request, tmp_path_factory):
    model, config, tokenizer, changes = CASES[request.param]
    directory = tmp_path_factory.mktemp(request.param)
    options = {}
    if tokenizer is text_checkpoints.word_piece and "mpnet" in request.param:
        options = {"special": ("<pad>", "[UNK]", "<s>", "</s>", "<mask>")}
    size = tokenizer(directory, **options)
    changes = {
        "vocab_size": size,
        "intermediate_size": 64,
        "max_position_embeddings": 50,
        **changes,
    }
    config = getattr(transformers, config)(**changes)
    model = randomize(getattr(transformers, model)(config))
    model.save_pretrained(directory)
    return directory


def reference(directory):
    """Texts -> [batch, length, width] token vectors, and the mask, by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory).eval()

    def run(texts, limit):
        texts = [text.strip() for text in texts]
        options = {"padding": True, "truncation": True, "return_tensors": "pt"}
        batch = tokenizer(texts, max_length=limit, **options)
        with torch.inference_mode():
            tokens = model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        return tokens.numpy(), batch["attention_mask"].numpy().astype(bool)

    return run


def mean(tokens, mask):
    return np.stack([row[real].mean(axis=0) for row, real in zip(tokens, mask, strict=True)])


def embed(encoder, texts):
    return np.asarray(jax.jit(encoder.apply)(encoder.params, encoder.preprocess(texts)))


def relative_difference(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def cosines(ours, theirs):
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return np.sum(ours * theirs, axis=-1) / lengths


def test_embeddings_agree(checkpoint):
    encoder = encoders.load(checkpoint, modality="text")
    limit = encoder.preprocess.limit
    expected = mean(*reference(checkpoint)(TEXTS, limit))
    assert limit in (48, 50)
    assert relative_difference(embed(encoder, TEXTS), expected) <= 1e-4


def test_half_precision_is_close(checkpoint):
    encoder = encoders.load(checkpoint, modality="text", dtype=jnp.bfloat16)
    ours = embed(encoder, TEXTS)
    assert ours.dtype == np.float32
    expected = mean(*reference(checkpoint)(TEXTS, encoder.preprocess.limit))
    assert cosines(ours, expected).min() >= 0.999


CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>", "<|mask|>")


def clip_checkpoint(directory, model, **changes):
    """A CLIP, or its text tower, with a tokenizer that pads with the last token as CLIP's does."""
    size = text_checkpoints.byte_pairs(
        directory, special=CLIP_SPECIAL, kind="PreTrainedTokenizerFast", limit=20
    )
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    sizes = {"vocab_size": size, "intermediate_size": 64, "max_position_embeddings": 20}
    text = transformers.CLIPTextConfig(**{**sizes, **ends, **changes})
    if model == "CLIPModel":
        vision = dict(SMALL, intermediate_size=64, image_size=32, patch_size=16)
        config = transformers.CLIPConfig(
            text_config=text.to_dict(), vision_config=vision, projection_dim=text.projection_dim
        )
    else:
        config = text
    model = randomize(getattr(transformers, model)(config))
    model.save_pretrained(directory)
    return model


def clip_reference(model, directory, texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    arguments = batch["input_ids"], batch["attention_mask"]
    with torch.inference_mode():
        if isinstance(model, transformers.CLIPModel):
            return model.get_text_features(*arguments).pooler_output.numpy()
        return model(*arguments).text_embeds.numpy()


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("CLIPModel", SMALL | {"projection_dim": 24}),
        ("CLIPModel", LARGER | {"projection_dim": 40, "hidden_act": "gelu"}),
        ("CLIPTextModelWithProjection", LARGER | {"projection_dim": 16}),
    ],
)
def test_clip_agrees(tmp_path, model, changes):
    model = clip_checkpoint(tmp_path, model, **changes)
    texts = [text.strip() for text in TEXTS]
    expected = clip_reference(model, tmp_path, texts)
    encoder = encoders.load(tmp_path, modality="text")
    assert encoder.preprocess.limit == 20
    assert encoder.dimension == changes["projection_dim"]
    assert relative_difference(embed(encoder, texts), expected) <= 1e-4
    half = encoders.load(tmp_path, modality="text", dtype=jnp.bfloat16)
    assert cosines(embed(half, texts), expected).min() >= 0.999


@pytest.mark.parametrize(
    "changes",
    [SMALL | {"projection_size": 24}, LARGER | {"projection_size": 48, "hidden_act": "gelu"}],
)
def test_siglip_agrees(tmp_path, changes):
    size = text_checkpoints.byte_pairs(
        tmp_path, special=CLIP_SPECIAL, kind="PreTrainedTokenizerFast", limit=20
    )
    sizes = {"vocab_size": size, "intermediate_size": 64, "max_position_embeddings": 20}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = dict(SMALL, intermediate_size=64, image_size=32, patch_size=16)
    config = transformers.SiglipConfig(
        text_config={**sizes, **ends, **changes}, vision_config=vision
    )
    model = randomize(transformers.SiglipModel(config))
    model.save_pretrained(tmp_path)
    texts = [text.strip() for text in TEXTS]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    batch = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model.get_text_features(batch["input_ids"]).pooler_output.numpy()
    encoder = encoders.load(tmp_path, modality="text")
    assert encoder.dimension == changes["projection_size"]
    assert relative_difference(embed(encoder, texts), expected) <= 1e-4
    half = encoders.load(tmp_path, modality="text", dtype=jnp.bfloat16)
    assert cosines(embed(half, texts), expected).min() >= 0.999


def test_relative_positions_agree():
    distances = np.arange(-600, 601)
    expected = transformers.models.mpnet.modeling_mpnet.MPNetEncoder.relative_position_bucket(
        torch.from_numpy(distances)
    )
    np.testing.assert_array_equal(mpnet.relative_bucket(distances, 32), expected.numpy())


def assorted_sentences(count):
    """Sentences of 0 to 400 words of several languages, most of them short."""
    rng = np.random.default_rng(0)
    words = [*" ".join(text_checkpoints.SENTENCES).split(), "🙂", "don't", "3.14", "e\u0301", "\t"]
    lengths = np.concatenate([[0, 1, 400], rng.geometric(0.1, count - 7), 250 - np.arange(4)])
    return [" ".join(rng.choice(words, size=length)) for length in lengths]


def test_minilm_agrees(installed_encoder):
    """The published weights, on 500 sentences: long, empty and non-English ones included."""
    encoder = installed_encoder("all-MiniLM-L6-v2")
    run = reference(installed_weights("all-MiniLM-L6-v2"))
    sentences = sorted(assorted_sentences(500), key=len)
    apply = jax.jit(encoder.apply)
    for start in range(0, 500, 25):
        batch = sentences[start : start + 25]
        ours = np.asarray(apply(encoder.params, encoder.preprocess(batch)))
        expected = mean(*run(batch, 256))
        assert cosines(ours, expected).min() >= 0.99999
        np.testing.assert_allclose(np.linalg.norm(ours, axis=-1), 1.0, atol=1e-5)
