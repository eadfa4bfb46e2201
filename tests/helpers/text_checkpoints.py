"""Text encoders written to disk as they are published, with random weights and small tokenizers."""

import json

import numpy as np
import safetensors.numpy
import tokenizers
from flax import nnx
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = (
    "A man rides a red bicycle along the river.",
    "Two dogs are playing with a ball in the snow!",
    "Straßenbahnen fahren durch die Stadt, Tag und Nacht.",
    "Le chat noir dort sur le toit; il fait beau.",
    "数学は美しい。",
    "Быстрая лиса прыгает через собаку.",
    "naïve café, 3.14 & 2,718 – isn't it?",
    "the quick brown fox jumps over the lazy dog",
)


def random_tensors(module, checkpoint_name, seed=0):
    """A checkpoint by its published names, in PyTorch's layout.

    Args:
      module: rngs -> the module.
      checkpoint_name: path of a parameter -> its name.
      seed: of the weights.
    """
    _, state = nnx.split(nnx.eval_shape(lambda: module(nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    tensors = {}
    for path, leaf in nnx.to_flat_state(state):
        shape = leaf.get_value().shape
        shape = shape[::-1] if path[-1] == "kernel" else shape
        tensors[checkpoint_name(path)] = rng.normal(0.3, 0.5, size=shape).astype(np.float32)
    return tensors


def word_piece(directory, *, special=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")):
    """BERT's kind of tokenizer: lower case, word pieces; gives the size of its vocabulary."""
    pad, unknown, first, last, _ = special
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=list(special), show_progress=False
    )
    return _save(tokenizer, trainer, directory, "BertTokenizer", pad, first, last, unknown)


def byte_pairs(
    directory,
    *,
    special=("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    kind="RobertaTokenizer",
    limit=512,
):
    """RoBERTa's kind of tokenizer: bytes merged by frequency; gives its size."""
    first, pad, last, unknown, _ = special
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(dict.fromkeys(special)),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return _save(tokenizer, trainer, directory, kind, pad, first, last, unknown, limit)


def unigrams(directory, *, special=("<s>", "<pad>", "</s>", "<unk>", "<mask>")):
    """XLM-RoBERTa's kind of tokenizer: the likeliest pieces; gives its size."""
    first, pad, last, unknown, _ = special
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=list(special), unk_token=unknown, show_progress=False
    )
    return _save(
        tokenizer, trainer, directory, "PreTrainedTokenizerFast", pad, first, last, unknown
    )


def _save(tokenizer, trainer, directory, kind, pad, first, last, unknown, limit=512):
    directory.mkdir(exist_ok=True, parents=True)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": kind,
        "pad_token": pad,
        "cls_token": first,
        "bos_token": first,
        "sep_token": last,
        "eos_token": last,
        "unk_token": unknown,
        "model_max_length": limit,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


def write(directory, config, tensors, *, file="model.safetensors"):
    """config.json and the weights."""
    directory.mkdir(exist_ok=True, parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(tensors, directory / file)
    return directory


def write_modules(directory, modules):
    """modules.json and each module's config.json.

    Args:
      directory: the root.
      modules: (type, path, config or None) of each.
    """
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path, _) in enumerate(modules)
    ]
    (directory / "modules.json").write_text(json.dumps(listed))
    for _, path, config in modules:
        if config is not None:
            (directory / path).mkdir(exist_ok=True)
            (directory / path / "config.json").write_text(json.dumps(config))
