import jax
import numpy as np
import oracle
import pytest

import asif_jax as asif

N, D, K = 60, 8, 12


@pytest.fixture(scope="module", params=[False, True], ids=["clipped", "signed"])
def pair(request):
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=[N, D])
    options = {"k": K, "p": 2.0, "signed": request.param}
    images = asif.project(rng.normal(size=[5, D]), anchors, **options)
    texts = asif.project(rng.normal(size=[5, D]), anchors, **options)
    return images, texts


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.vmap])
def test_contributions_match_oracle_and_add_up(pair, transform):
    images, texts = pair
    explanation = transform(asif.explain)(images, texts)
    products = oracle.to_dense(images) * oracle.to_dense(texts)
    found = np.zeros_like(products)
    np.put_along_axis(
        found, np.asarray(explanation.indices), np.asarray(explanation.contributions), axis=-1
    )
    np.testing.assert_allclose(found, products, atol=1e-6)
    scores = np.diagonal(asif.similarity(images, texts))
    np.testing.assert_allclose(explanation.contributions.sum(axis=-1), scores, atol=1e-5)


def test_largest_contribution_comes_first(pair):
    magnitudes = np.abs(asif.explain(*pair).contributions)
    assert (np.diff(magnitudes, axis=-1) <= 0).all()


def test_nothing_shared_explains_nothing():
    image = asif.project([[1.0, 0.0]], np.eye(2), k=1)
    text = asif.project([[0.0, 1.0]], np.eye(2), k=1)
    assert asif.explain(image, text).contributions.tolist() == [[0.0]]


def test_one_image_against_one_text(pair):
    images, texts = pair
    one = asif.explain(images[2], texts[2])
    np.testing.assert_array_equal(one.contributions, asif.explain(images, texts).contributions[2])


def test_gradient_is_the_other_side(pair):
    images, texts = pair

    def score(values):
        moved = asif.RelativeRepresentation(values, images.indices, images.size)
        return asif.explain(moved, texts).contributions.sum()

    expected = np.take_along_axis(oracle.to_dense(texts), np.asarray(images.indices), axis=-1)
    np.testing.assert_allclose(jax.grad(score)(images.values), expected, atol=1e-6)


def test_misaligned_rows_are_refused(pair):
    images, texts = pair
    with pytest.raises(ValueError, match=r"\(5, 12\).*\(2, 12\)"):
        asif.explain(images, texts[:2])
