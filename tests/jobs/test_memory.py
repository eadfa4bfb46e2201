import dataclasses

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import toy

from asif_jax.data import open_image
from asif_jax.jobs.embedding import encoding, memory, pipeline
from asif_jax.jobs.embedding.into_store import check_k


def images_of(pairs):
    return [pair.image for pair in pairs]


@pytest.mark.parametrize("count", [1, 3, 32, 70])
def test_images_come_back_in_order(tmp_path, count):
    pairs = toy.write_pairs(tmp_path, count)
    encoder = toy.image_encoder()
    embeddings, kept, skipped = memory.embed_images(images_of(pairs), encoder, progress=False)
    pixels = [np.asarray(open_image(path)).reshape(-1, 3) for path in images_of(pairs)]
    np.testing.assert_allclose(embeddings, np.mean(pixels, axis=1), atol=1e-3)
    assert kept == list(range(count))
    assert skipped == ()


@pytest.mark.parametrize("bad", [[0], [39], [5, 6, 31, 32]])
def test_unreadable_images_are_left_out_and_named(tmp_path, bad):
    paths = images_of(toy.write_pairs(tmp_path, 40))
    whole, _, _ = memory.embed_images(paths, toy.image_encoder(), progress=False)
    for index in bad:
        paths[index].write_bytes(paths[index].read_bytes()[:50])
    embeddings, kept, skipped = memory.embed_images(paths, toy.image_encoder(), progress=False)
    assert kept == [index for index in range(40) if index not in bad]
    assert [item.path for item in skipped] == [paths[index] for index in bad]
    np.testing.assert_array_equal(embeddings, whole[kept])


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"none of 1 images.*a\.png"):
        memory.embed_images([tmp_path / "a.png"], toy.image_encoder(), progress=False)


@pytest.mark.parametrize("count", [1, 33, 100])
def test_texts_come_back_in_order(count):
    names = list(toy.COLORS)
    texts = [" ".join(names[i % 7 : i % 7 + 1 + i % 3]) for i in range(count)]
    encoder = toy.text_encoder()
    embeddings = memory.embed_texts(texts, encoder)
    expected = encoder.preprocess(texts) @ np.asarray(encoder.params)
    np.testing.assert_allclose(embeddings, expected)


def test_no_texts():
    with pytest.raises(ValueError, match="no text"):
        memory.embed_texts([], toy.text_encoder())


def test_non_finite_embeddings_are_refused(tmp_path):
    encoder = dataclasses.replace(toy.image_encoder(), params=jnp.float32(np.nan))
    paths = images_of(toy.write_pairs(tmp_path, 3))
    with pytest.raises(ValueError, match=r"toy colors embeddings .* 3 of 3 rows"):
        memory.embed_images(paths, encoder, progress=False)


def test_pairs_keep_their_captions(tmp_path):
    pairs = toy.write_pairs(tmp_path, 9, captions=3)
    pairs[4].image.write_bytes(b"")
    embedded = memory.embed_pairs(pairs, toy.encoders(), progress=False)
    good = pairs[:4] + pairs[5:]
    assert embedded.pairs == good
    assert embedded.owners.tolist() == np.repeat(np.arange(8), 3).tolist()
    flat = [caption for pair in good for caption in pair.captions]
    assert [embedded.caption(index) for index in range(24)] == flat
    by_pair = oracle.unit(embedded.captions).reshape(8, 3, -1)
    np.testing.assert_allclose(embedded.caption_means(), by_pair.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_the_batch_changes_no_text(batch):
    texts = [f"{' '.join(list(toy.COLORS)[: 1 + index % 7])} {index}" for index in range(33)]
    encoder = toy.text_encoder()
    sizes = []

    def preprocess(items):
        sizes.append(len(items))
        return encoder.preprocess(items)

    counting = dataclasses.replace(encoder, preprocess=preprocess)
    embeddings = memory.embed_texts(texts, counting, batch=batch)
    np.testing.assert_array_equal(embeddings, memory.embed_texts(texts, encoder))
    assert sizes == [batch] * -(-33 // batch)


def test_non_finite_texts_are_kept_if_asked_for():
    encoder = toy.text_encoder()
    params = encoder.params.at[0].set(jnp.nan)

    def apply(params, named):
        return jnp.where(named[..., None] > 0, params, 0).sum(axis=1)

    encoder = dataclasses.replace(encoder, params=params, apply=apply)
    texts = ["blue", "red", "green"]
    with pytest.raises(ValueError, match=r"toy words embeddings .* 1 of 3 rows"):
        memory.embed_texts(texts, encoder)
    embeddings = encoding.encode_sentences(texts, encoder, 4)
    assert np.isnan(embeddings).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("k", [0, 13])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(ValueError, match=f"k={k}, 12 pairs"):
        check_k(k, 12)
    for possible in (None, 1, 12):
        check_k(possible, 12)


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_threads_keep_the_order_and_do_not_run_ahead(ahead):
    taken = []

    def numbers():
        for number in range(20):
            taken.append(number)
            yield number

    for count, square in enumerate(pipeline.in_threads(numbers(), np.square, ahead=ahead)):
        assert square == count**2
        assert len(taken) == min(count + ahead, 20)
    assert count == 19


def test_an_error_in_a_thread_comes_out_in_its_turn():
    results = pipeline.in_threads(["4", "9", "none", "16"], int)
    assert [next(results), next(results)] == [4, 9]
    with pytest.raises(ValueError, match="'none'"):
        next(results)
