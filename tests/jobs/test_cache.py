import numpy as np
import pytest
import toy
from PIL import Image

from asif_jax.data import read_set
from asif_jax.jobs.embedding import cache as module
from asif_jax.jobs.embedding.cache import embed_sentences, embed_set
from asif_jax.jobs.embedding.memory import embed_images, embed_texts


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "_PART", 4)


@pytest.fixture
def folder(tmp_path):
    """Ten captioned images; the groups are no classes, since captions are there."""
    toy.write_pairs(tmp_path / "pairs", 10)
    return tmp_path / "pairs"


def embed(folder, cache, encoder=None):
    images = read_set(str(folder))
    return images, list(
        embed_set(images, encoder or toy.image_encoder(), cache=cache, progress=False)
    )


def test_parts_match_the_whole(folder, tmp_path):
    images, parts = embed(folder, tmp_path / "cache")
    paths = [images.place(index) for index in range(images.size)]
    whole, _, _ = embed_images(paths, toy.image_encoder(), progress=False)
    assert [len(part.indices) for part in parts] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([part.embeddings for part in parts]), whole)
    assert np.concatenate([part.indices for part in parts]).tolist() == list(range(10))
    captions = [path.with_suffix(".txt").read_text() for path in paths]
    assert [text for part in parts for (text,) in part.captions] == captions
    assert {label for part in parts for label in part.labels.tolist()} == {-1}


def test_labels_come_along(tmp_path):
    for name in ("red", "blue"):
        for index in range(3):
            path = tmp_path / "set" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), name).save(path)
    _, parts = embed(tmp_path / "set", tmp_path / "cache")
    assert np.concatenate([part.labels for part in parts]).tolist() == [0, 0, 0, 1, 1, 1]
    assert all(part.captions == ((),) * len(part.indices) for part in parts)


def test_a_rerun_reads_no_image_again(folder, tmp_path):
    _, first = embed(folder, tmp_path / "cache")
    images = read_set(str(folder))
    # An identity that stays makes the cache answer for images that are gone.
    for index in range(images.size):
        images.place(index).unlink()
    again = list(embed_set(images, toy.image_encoder(), cache=tmp_path / "cache", progress=False))
    for before, after in zip(first, again, strict=True):
        np.testing.assert_array_equal(before.embeddings, after.embeddings)
        assert before.captions == after.captions


def test_an_interruption_costs_one_part(folder, tmp_path):
    images, encoder = read_set(str(folder)), toy.image_encoder()
    parts = embed_set(images, encoder, cache=tmp_path / "cache", progress=False)
    next(parts)
    next(parts)
    parts.close()
    for index in range(8):
        images.place(index).unlink()
    again = list(embed_set(images, encoder, cache=tmp_path / "cache", progress=False))
    assert [len(part.indices) for part in again] == [4, 4, 2]


def test_another_encoder_or_another_image_is_noticed(folder, tmp_path, caplog):
    _, first = embed(folder, tmp_path / "cache")
    _, doubled = embed(folder, tmp_path / "cache", toy.image_encoder(2.0))
    np.testing.assert_allclose(doubled[0].embeddings, 2 * first[0].embeddings, rtol=1e-6)
    assert caplog.text == ""
    images = read_set(str(folder))
    Image.new("RGB", (9, 9), "black").save(images.place(0))
    _, changed = embed(folder, tmp_path / "cache")
    assert not changed[0].embeddings[0].any()
    assert "changed since the last run" in caplog.text


@pytest.mark.parametrize("bad", [[0], [4, 5, 6, 7], [3, 9]])
def test_unreadable_images_are_named_and_tried_again(folder, tmp_path, bad):
    images, whole = embed(folder, tmp_path / "whole")
    contents = {index: images.place(index).read_bytes() for index in bad}
    for index in bad:
        images.place(index).write_bytes(b"")
    encoder, cache = toy.image_encoder(), tmp_path / "cache"
    parts = list(embed_set(images, encoder, cache=cache, progress=False))
    kept = [index for part in parts for index in part.indices.tolist()]
    assert kept == [index for index in range(10) if index not in bad]
    skipped = [item for part in parts for item in part.skipped]
    assert [item.path for item in skipped] == [images.place(index) for index in bad]
    assert {item.reason for item in skipped} == {"not an image, or an empty file"}
    for index, content in contents.items():
        images.place(index).write_bytes(content)
    repaired = list(embed_set(images, encoder, cache=cache, progress=False))
    for before, after in zip(whole, repaired, strict=True):
        np.testing.assert_array_equal(before.embeddings, after.embeddings)


def test_sentences_are_kept(tmp_path):
    texts = [f"{color} {index}" for index in range(2) for color in toy.COLORS]
    encoder = toy.text_encoder()
    first = embed_sentences(texts, encoder, cache=tmp_path, progress=False)
    np.testing.assert_array_equal(first, embed_texts(texts, encoder))
    size = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = embed_sentences(texts, encoder, cache=tmp_path, progress=False)
    np.testing.assert_array_equal(first, again)
    assert size == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    other = embed_sentences(texts[::-1], encoder, cache=tmp_path, progress=False)
    np.testing.assert_array_equal(other, first[::-1])
    with pytest.raises(ValueError, match="no text"):
        embed_sentences([], encoder, cache=tmp_path)
