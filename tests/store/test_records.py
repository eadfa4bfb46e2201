import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_jax.store import StoredPair, StoreError
from asif_jax.store.records import decode, encode, pack, unpack

STRANGE = (
    "",
    "\0",
    "a\nb\r\n\u2028\u2029\x85c",
    "\"quotes\" 'and' \\ backslashes \\n",
    "\udcff lone \ud800",
    "\ud83d\ude00 apart",
    "😀 together",
    "犬 кошка كلب हाथी ปลา ქათამი ᏣᎳᎩ e\u0301 é",
    "null",
    "]\n[",
)
PAIRS = [StoredPair(text, (text, *STRANGE)) for text in STRANGE]

# Hypothesis leaves surrogates out of text unless they are asked for.
TEXT = st.text(st.one_of(st.characters(), st.characters(categories=["Cs"])), max_size=8)
ROW = st.none() | st.builds(StoredPair, TEXT, st.lists(TEXT, max_size=3).map(tuple))


@pytest.mark.parametrize("rows", [PAIRS, [None, *PAIRS, None], [None], [StoredPair("", ())]])
def test_strange_texts_come_back(rows):
    assert decode(encode(rows)) == rows


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=5))
def test_all_texts_come_back(rows):
    assert decode(encode(rows)) == rows


@settings(deadline=None)
@given(st.recursive(st.none() | TEXT | st.integers() | st.booleans(), st.lists, max_leaves=5))
def test_packed_values_come_back(value):
    assert unpack(pack(value)) == value


def test_every_flipped_bit_is_an_error():
    content = encode([*PAIRS[:3], None])
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(StoreError, match="damaged"):
            decode(bytes(flipped))


def test_every_truncation_is_an_error():
    for content, read in ((encode(PAIRS), decode), (pack(list(STRANGE)), unpack)):
        for length in range(len(content)):
            with pytest.raises(StoreError, match="damaged"):
                read(content[:length])
        with pytest.raises(StoreError, match="damaged"):
            read(content + b"\n")
