import json

import numpy as np
import pytest
import text_checkpoints

from asif_jax.encoders.text.tokenization import Tokenizer, fast_tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    text_checkpoints.word_piece(directory)
    return directory


@pytest.fixture(scope="module")
def fast(directory):
    return fast_tokenizer(directory)


def test_ids_are_those_of_the_published_tokenizer(fast):
    texts = [*text_checkpoints.SENTENCES, "", "🙂 e\u0301"]
    batch = Tokenizer(fast, 500)(texts)
    assert (batch["ids"].dtype, batch["mask"].dtype) == (np.int32, bool)
    for text, ids, mask in zip(texts, batch["ids"], batch["mask"], strict=True):
        assert ids[mask].tolist() == fast(text)["input_ids"]
        assert (ids[~mask] == fast.pad_token_id).all()
        assert not mask[mask.sum() :].any()


@pytest.mark.parametrize("limit", [20, 64, 77, 600])
def test_few_lengths_are_used(fast, limit):
    tokenize = Tokenizer(fast, limit)
    lengths = {tokenize(["a " * count])["ids"].shape[1] for count in range(0, 700, 3)}
    assert lengths == {2**n for n in range(4, 10) if 2**n < limit} | {limit}


def test_long_texts_are_cut_and_still_end_as_texts_do(fast):
    batch = Tokenizer(fast, 20)(["a " * 100, ""])
    first, last = fast.cls_token_id, fast.sep_token_id
    assert batch["mask"].sum(axis=1).tolist() == [20, 2]
    assert batch["ids"][:, 0].tolist() == [first, first]
    assert (batch["ids"][0, -1], batch["ids"][1, 1]) == (last, last)


def test_full_texts_are_all_of_one_length_and_their_padding_counts(fast):
    texts = ["a dog", "", "a " * 100]
    batch, plain = Tokenizer(fast, 50, full=True)(texts), Tokenizer(fast, 50)(texts)
    assert batch["mask"].all()
    np.testing.assert_array_equal(batch["ids"], plain["ids"])
    assert Tokenizer(fast, 50, full=True)([""])["ids"].shape == (1, 50)


def test_prompts_and_lower_case_come_before_the_tokenizer(tmp_path):
    text_checkpoints.byte_pairs(tmp_path)
    fast = fast_tokenizer(tmp_path)

    def ids(tokenize, text):
        batch = tokenize([text])
        return batch["ids"][batch["mask"]].tolist()

    plain = Tokenizer(fast, 60)
    assert ids(plain, " A dog \n") == ids(plain, "A dog")
    assert ids(Tokenizer(fast, 60, lower_case=True), "A Dog") == ids(plain, "a dog")
    assert ids(Tokenizer(fast, 60, prompt="query: "), "A dog") == ids(plain, "query: A dog")
    assert ids(plain, "A dog") != ids(plain, "a dog")


def test_a_missing_or_damaged_tokenizer_is_named(directory, tmp_path):
    with pytest.raises(ValueError, match=r"tokenizer\.json is missing"):
        fast_tokenizer(tmp_path)
    content = (directory / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(content[: len(content) // 2])
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer"})
    )
    with pytest.raises(ValueError, match=r"tokenizer\.json gives no tokenizer"):
        fast_tokenizer(tmp_path)


def test_a_vocabulary_of_words_is_a_tokenizer_too(directory, fast, tmp_path):
    vocabulary = sorted(fast.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("\n".join(token for token, _ in vocabulary))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    plain = fast_tokenizer(tmp_path)
    for text in text_checkpoints.SENTENCES:
        assert plain(text)["input_ids"] == fast(text)["input_ids"]
