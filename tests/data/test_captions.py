from pathlib import Path

import pytest

from asif_jax.data.captions import (
    caption_value,
    clean_captions,
    decode_caption,
    parse_object,
    require_captions,
)


@pytest.mark.parametrize(
    "text",
    [
        "Ein Käfer.",
        "一只猫",
        "كلب",
        "🐕 собака",
        "zero\0byte",
        "नमस्ते",
        "👩‍👩‍👧",
        "e\u0301",
        "x" * 10_000,
    ],
)
def test_captions_in_every_script_pass_unchanged(text):
    assert clean_captions(text) == (text,)
    assert decode_caption(text.encode()) == (text,)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" Two\n\twords\u3000here ", ("Two words here",)),
        (["a", "", " ", None, 3, "b", "a"], ("a", "b", "a")),
        (("a",), ("a",)),
        ("half \ud83d", ("half \ufffd",)),
        ("", "no caption"),
        (None, "no caption"),
        ([], "no caption"),
        ({"a": "b"}, "no caption"),
        ("x" * 10_001, "caption of 10,001 characters"),
        (["fine", "x" * 2**20], "caption of 1,048,576 characters"),
        (" " * 20_000 + "short", ("short",)),
    ],
)
def test_values(value, expected):
    assert clean_captions(value) == expected


def test_the_first_name_that_says_anything_counts():
    row = {"text": "d", "texts": ["c"], "caption": "b", "captions": ["a"]}
    for expected in (["a"], "b", ["c"], "d", None):
        assert caption_value(row) == expected
        row = {key: value for key, value in row.items() if value != expected}


def test_bytes_that_are_no_text():
    assert decode_caption(b"\xff\xfea\0") == "caption is not UTF-8"
    assert decode_caption(b"\xef\xbb\xbfA.") == ("A.",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"[1]", "not a JSON object"),
        (b"{", "not JSON in UTF-8"),
        (b"", "not JSON in UTF-8"),
        (b'{"a": "\xff"}', "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON in UTF-8"),
        (b"9" * 10_000, "not JSON in UTF-8"),
    ],
    ids=range(7),
)
def test_objects(content, expected):
    assert parse_object(content) == expected


def test_captions_are_required_at_a_place():
    assert require_captions(("a",), Path("x")) == ("a",)
    with pytest.raises(ValueError, match=r"^a\.tar:x: no caption$"):
        require_captions("no caption", Path("a.tar:x"))
