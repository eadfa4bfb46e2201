import math
from itertools import combinations

import noise
import numpy as np
import oracle
import pytest

from asif_jax.data import read_set
from asif_jax.jobs.embedding import cache as embedding_cache
from asif_jax.jobs.embedding.memory import embed_images, embed_texts
from asif_jax.jobs.evaluate import retrieval
from asif_jax.jobs.evaluate.retrieval import chance_recall, retrieval_ranks, retrieve_set


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(embedding_cache, "_PART", 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """23 images of one to three captions."""
    directory = tmp_path_factory.mktemp("captioned")
    lines = ["file_name,caption"]
    for index in range(23):
        noise.write_image(directory / f"{index:02}.png", seed=index)
        lines += [f"{index:02}.png,caption {index} {c}" for c in range(1 + index % 3)]
    (directory / "metadata.csv").write_text("\n".join(lines))
    return directory


def retrieve(images, cache, *, model=None):
    options = {"cache": cache, "progress": False}
    return retrieve_set(model or noise.model(), images, noise.encoders(), **options)


def expected_ranks(images):
    """Ranks both ways from float64 scores, and the image of each caption."""
    model = noise.model()
    paths = [images.place(index) for index in range(images.size)]
    captions = [images.read(index).captions for index in range(images.size)]
    owners = np.repeat(np.arange(len(paths)), list(map(len, captions)))
    pixels, _, _ = embed_images(paths, noise.image_encoder(), progress=False)
    texts = [text for group in captions for text in group]
    words = embed_texts(texts, noise.text_encoder())
    options = {"k": 10, "p": 3.0}
    left = oracle.dense_representation(pixels, model.anchors.embeddings["image"], **options)
    right = oracle.dense_representation(words, model.anchors.embeddings["text"], **options)
    own = owners == np.arange(len(paths))[:, None]
    scores = left @ right.T
    return oracle.best_rank(scores, own), oracle.best_rank(scores.T, own.T), owners


def test_figures_match_oracle(folder, tmp_path):
    images = read_set(str(folder))
    found = retrieve(images, tmp_path)
    to_text, to_image, owners = expected_ranks(images)
    assert (found.images, found.text_to_image.queries) == (23, len(owners))
    for direction, ranks in ((found.image_to_text, to_text), (found.text_to_image, to_image)):
        for k in (1, 5, 10):
            assert direction.recall[k].value == pytest.approx(np.mean(ranks <= k))
            assert direction.recall[k].low <= direction.recall[k].value <= direction.recall[k].high
        assert direction.median_rank.value == np.median(ranks)


def test_intervals_resample_images_with_their_captions(folder, tmp_path):
    images = read_set(str(folder))
    found = retrieve(images, tmp_path)
    _, ranks, owners = expected_ranks(images)
    hits, counts = (np.bincount(owners, weights=w) for w in (ranks <= 10, np.ones(len(ranks))))
    drawn = np.random.default_rng(0).integers(0, 23, size=[20_000, 23])
    recalls = hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    expected = np.quantile(recalls, [0.025, 0.975])
    np.testing.assert_allclose(found.text_to_image.recall[10][1:], expected, atol=0.03)


@pytest.mark.parametrize("scores", [1, 9, 20, 1000])
def test_ranks_do_not_depend_on_the_block(scores):
    images, texts, rng = 7, 9, np.random.default_rng(2)
    model = noise.model()
    left = model.represent(rng.normal(size=[images, 8]), "image")
    right = model.represent(rng.normal(size=[texts, 6]), "text")
    # One image has no text.
    owners = np.arange(texts) % (images - 1)
    whole = np.asarray(model.score(left, right))
    own = owners == np.arange(images)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_SCORES", scores)
        to_text, to_image = retrieval_ranks(model, left, right, np.arange(images), owners)
    # Blocks of other shapes round otherwise, so places may differ between near equals only.
    np.testing.assert_array_equal(to_text > texts, ~own.any(axis=1))
    for ranks, s, r in ((to_text, whole, own), (to_image, whole.T, own.T)):
        for rank, row, right_ones in zip(ranks, s, r, strict=True):
            if right_ones.any():
                best = row[right_ones].max()
                assert np.sum(row > best + 1e-5) < rank <= np.sum(row >= best - 1e-5)


@pytest.mark.parametrize(("items", "right", "k"), [(6, 1, 1), (6, 2, 3), (5, 3, 3), (3, 1, 9)])
def test_chance_counts_all_orders(items, right, k):
    hits = [any(i < right for i in drawn) for drawn in combinations(range(items), min(k, items))]
    assert chance_recall(np.asarray([right]), items, k=k) == pytest.approx(np.mean(hits))


def test_chance_averages_over_queries():
    both = chance_recall(np.asarray([1, 2, 2]), 6, k=2)
    each = [1 - math.comb(6 - r, 2) / math.comb(6, 2) for r in (1, 2, 2)]
    assert both == pytest.approx(np.mean(each))


def test_own_and_unreadable_images(tmp_path):
    for index in range(18):
        noise.write_image(tmp_path / "pairs" / f"{index:02}.png", seed=index)
        (tmp_path / "pairs" / f"{index:02}.txt").write_text(f"caption {index}")
    images = read_set(str(tmp_path / "pairs"))
    for index in range(16):
        images.place(index).write_bytes(b"")
    model = noise.model(images=[images.place(index).resolve() for index in (0, 17)])
    found = retrieve(images, tmp_path / "cache", model=model)
    assert (found.images, found.own, len(found.skipped)) == (2, 1, 16)
    assert found.image_to_text.chance[1] == 0.5
    for index in (16, 17):
        images.place(index).write_bytes(b"")
    with pytest.raises(ValueError, match="none of 18 images"):
        retrieve(images, tmp_path / "another cache", model=model)


def test_a_set_of_classes_is_refused(tmp_path):
    for name in ("a", "b"):
        noise.write_image(tmp_path / name / "0.png", seed=0)
    with pytest.raises(ValueError, match="no captions to find"):
        retrieve(read_set(str(tmp_path)), tmp_path / "cache")
