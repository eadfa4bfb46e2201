import noise
import numpy as np
import oracle
import pytest
import toy

from asif_jax.data import read_set
from asif_jax.jobs.embedding import cache as embedding_cache
from asif_jax.jobs.embedding.memory import embed_images, embed_texts
from asif_jax.jobs.evaluate.classification import classify_set
from asif_jax.jobs.evaluate.intervals import Figure

NAMES = ("ape", "bee", "cat", "dog", "elk", "fox", "gnu")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(embedding_cache, "_PART", 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven classes of 3 to 9 images."""
    directory = tmp_path_factory.mktemp("classes")
    for label, name in enumerate(NAMES):
        for index in range(3 + label):
            noise.write_image(directory / name / f"{index}.png", seed=100 * label + index)
    return directory


def classify(folder, cache, *, model=None, images=None, **options):
    images = images or read_set(str(folder))
    return classify_set(
        model or noise.model(), images, noise.encoders(), cache=cache, progress=False, **options
    )


def expected_scores(folder, templates, prompts):
    """[images, classes] float64, and the labels."""
    model, images = noise.model(), read_set(str(folder))
    paths = [images.place(index) for index in range(images.size)]
    pixels, _, _ = embed_images(paths, noise.image_encoder(), progress=False)
    texts = [template.replace("{}", name) for name in NAMES for template in templates]
    words = embed_texts(texts, noise.text_encoder())
    if prompts == "mean":
        words = oracle.unit(words).reshape(len(NAMES), len(templates), -1).mean(axis=1)
    options = {"k": 10, "p": 3.0}
    left = oracle.dense_representation(pixels, model.anchors.embeddings["image"], **options)
    right = oracle.dense_representation(words, model.anchors.embeddings["text"], **options)
    scores = (left @ right.T).reshape(len(paths), len(NAMES), -1).max(axis=-1)
    return scores, np.asarray([NAMES.index(path.parent.name) for path in paths])


@pytest.mark.parametrize("prompts", ["max", "mean"])
@pytest.mark.parametrize("templates", [("{}",), ("{}", "a {}.", "the {}!")])
def test_figures_match_oracle(folder, tmp_path, prompts, templates):
    found = classify(folder, tmp_path, prompts=prompts, templates=templates)
    scores, labels = expected_scores(folder, templates, prompts)
    ranks = oracle.best_rank(scores, labels[:, None] == np.arange(7))
    confusion = np.zeros([7, 7], int)
    np.add.at(confusion, (labels, scores.argmax(axis=1)), 1)
    np.testing.assert_array_equal(found.confusion, confusion)
    shares = np.diag(confusion) / confusion.sum(axis=1)
    assert found.images == len(labels) == 42
    assert found.top1.value == pytest.approx(np.mean(ranks == 1))
    assert found.top5.value == pytest.approx(np.mean(ranks <= 5))
    assert found.mean_per_class.value == pytest.approx(shares.mean())
    np.testing.assert_allclose([share.value for share in found.per_class], shares, rtol=1e-6)


def test_intervals_are_those_of_a_bootstrap(folder, tmp_path):
    found = classify(folder, tmp_path)
    drawn = np.random.default_rng(0).binomial(42, found.top1.value, size=20_000) / 42
    # 42 images give steps of 0.024.
    np.testing.assert_allclose(found.top1[1:], np.quantile(drawn, [0.025, 0.975]), atol=0.025)
    for figure in (found.top1, found.top5, found.mean_per_class, *found.per_class):
        assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_the_cache_changes_nothing(folder, tmp_path):
    first = classify(folder, tmp_path)
    again = classify(folder, tmp_path)
    np.testing.assert_array_equal(first.confusion, again.confusion)
    assert first[:-2] == again[:-2]


def test_a_model_that_knows_is_right(tmp_path):
    pairs = toy.write_pairs(tmp_path / "pairs", 42)
    model = toy.model(pairs, k=9, p=3.0)
    for pair in toy.write_pairs(tmp_path / "new", 21):
        color = pair.captions[0].split()[0]
        target = tmp_path / "set" / color / pair.image.name
        target.parent.mkdir(parents=True, exist_ok=True)
        # White and grey have one direction.
        if color != "grey":
            pair.image.rename(target)
    images = read_set(str(tmp_path / "set"))
    options = {"cache": tmp_path / "cache", "progress": False}
    found = classify_set(model, images, toy.encoders(), **options)
    assert found.top1 == Figure(1.0, 1.0, 1.0)
    assert np.trace(found.confusion) == found.images == 18


def test_a_model_of_one_pair_still_counts(folder, tmp_path):
    found = classify(folder, tmp_path, model=noise.model(pairs=1, k=1))
    # Every score is 0 or 1. Of equals the first class is named; an image that shares the pair with
    # no class is named as none of them, and counts as wrong.
    assert found.images == found.confusion.sum() + found.none == 42
    assert found.none > 0
    assert np.count_nonzero(found.confusion.sum(axis=0)) <= 2
    assert found.top1.value == pytest.approx(np.trace(found.confusion) / 42)


def test_own_images_are_counted(folder, tmp_path):
    images = read_set(str(folder))
    own = [images.place(index).resolve() for index in (0, 20, 41)]
    assert classify(folder, tmp_path, model=noise.model(images=own)).own == 3


def test_unreadable_images_are_left_out(tmp_path):
    for index in range(20):
        noise.write_image(tmp_path / "set" / NAMES[index % 2] / f"{index}.png", seed=index)
    images = read_set(str(tmp_path / "set"))
    # One part of 16 is lost as a whole.
    for index in range(16):
        images.place(index).write_bytes(b"")
    found = classify(None, tmp_path / "cache", images=images)
    assert found.images == 4
    assert len(found.skipped) == 16
    assert np.isnan(found.per_class[0].value)
    assert found.mean_per_class.value == found.per_class[1].value
    assert found.top5 is None
    for index in range(16, 20):
        images.place(index).write_bytes(b"")
    with pytest.raises(ValueError, match="none of 20 images"):
        classify(tmp_path / "set", tmp_path / "cache")


def test_unusable_requests(folder, tmp_path):
    with pytest.raises(ValueError, match="max or mean"):
        classify(folder, tmp_path, prompts="best")
    with pytest.raises(ValueError, match="template must hold"):
        classify(folder, tmp_path, templates=("a photo",))
    noise.write_image(tmp_path / "pairs" / "a.png", seed=0)
    (tmp_path / "pairs" / "a.txt").write_text("A caption.")
    with pytest.raises(ValueError, match="no classes"):
        classify(tmp_path / "pairs", tmp_path)
