"""Naming images: probabilities, and none of these labels."""

import numpy as np
import pytest
import toy
from PIL import Image

from asif_jax.jobs.predict import name_images, search_images
from asif_jax.methods.calibration import Calibration
from asif_jax.model import EncoderRecord


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pairs = toy.write_pairs(tmp_path_factory.mktemp("pairs"), 28)
    made = toy.model(pairs, k=7, p=2.0)
    loadable = {
        m: EncoderRecord(f"toy:{m}_encoder", record.identity) for m, record in made.encoders.items()
    }
    return made._replace(encoders=loadable)


@pytest.fixture
def red(tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (4, 4), "red").save(path)
    return path


def name(model, image, labels):
    (named,), skipped = name_images(model, [image], labels, templates=["{}"], progress=False)
    assert skipped == ()
    return named


def test_without_a_calibration_there_are_scores_alone(model, red):
    named = name(model, red, ["blue", "red"])
    assert named.guesses[0].label == "red"
    assert [guess.probability for guess in named.guesses] == [None, None]
    assert not named.none


def test_probabilities_are_the_softmax_of_the_scores(model, red):
    calibrated = model._replace(calibration=Calibration(0.2, 0.1))
    named = name(calibrated, red, ["blue", "red", "green"])
    scores = np.asarray([guess.score for guess in named.guesses])
    expected = np.exp(scores / 0.2) / np.exp(scores / 0.2).sum()
    np.testing.assert_allclose([g.probability for g in named.guesses], expected, rtol=1e-5)


def test_none_fits_below_the_threshold(model, red):
    best = name(model, red, ["blue", "red"]).guesses[0].score
    for threshold, none in ((best + 0.01, True), (best - 0.01, False)):
        calibrated = model._replace(calibration=Calibration(0.2, threshold))
        assert name(calibrated, red, ["blue", "red"]).none == none


def test_an_image_that_shares_no_pair_with_any_label_resembles_none(model, red):
    # The encoder knows no such words, so their embedding is zero.
    named = name(model, red, ["xylophone", "zeppelin"])
    assert named.none
    assert [guess.score for guess in named.guesses] == [0.0, 0.0]


def test_a_sentence_that_shares_no_pair_with_any_image_finds_none(model, red):
    assert search_images(model, "xylophone", [red], progress=False)[0] == []
    (found,), _ = search_images(model, "red", [red], progress=False)
    assert found.score > 0
