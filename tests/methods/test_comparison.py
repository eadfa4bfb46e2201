import jax
import numpy as np
import pytest

from asif_jax import methods
from asif_jax.core import anchors
from asif_jax.methods.calibration import fit_threshold
from asif_jax.methods.comparison import Naming, calibrate, choose, compare, named_right


def coupled(count, *, noise, seed=0):
    """Pairs of two modalities with a common cause."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=[count, 6])
    sides = {m: cause @ np.random.default_rng(7).normal(size=[6, 9]) for m in ("image", "text")}
    return {m: side + noise * rng.normal(size=side.shape) for m, side in sides.items()}


def constant():
    """A method that tells nothing apart."""
    inner = methods.cca()
    return inner._replace(name="constant", score=lambda s, a, b: 0.0 * inner.score(s, a, b))


def test_a_method_that_finds_pairs_is_chosen_over_one_that_does_not():
    pairs = anchors.create(coupled(80, noise=0.1))
    trials = list(compare(pairs, [constant(), methods.cca()], splits=2, at=1))
    assert [len(trial.recall) for trial in trials] == [2, 2]
    assert trials[0].recall.max() <= 1 / trials[0].held_out + 1e-6
    assert trials[1].recall.min() > 0.8
    assert choose(trials).method.name == "cca"
    assert (trials[0].named, trials[0].inputs) == (None, 0)


def test_held_out_pairs_take_no_part():
    # A pair that is among the pairs finds itself, whatever the other side holds.
    rng = np.random.default_rng(0)
    unrelated = {m: rng.normal(size=[60, 40]) for m in ("image", "text")}
    (trial,) = compare(anchors.create(unrelated), [methods.paper(k=60)], at=1)
    assert trial.recall.mean() < 0.4


def test_dead_pairs_are_not_held_out():
    embeddings = coupled(50, noise=0.1)
    pairs = anchors.remove(anchors.create(embeddings), np.arange(40))
    (trial,) = compare(pairs, [methods.cca()], splits=1, at=1)
    assert trial.held_out == 2


def test_naming_is_counted_and_weighs_in_the_choice():
    embeddings = coupled(80, noise=0.1)
    pairs = anchors.create(embeddings)
    naming = Naming(embeddings["image"][:20], embeddings["text"][:20, None], np.arange(20))
    named = named_right(methods.cca(), pairs, naming)
    assert named > 0.9
    wrong = Naming(*naming[:2], np.roll(np.arange(20), 1))
    assert named_right(methods.cca(), pairs, wrong) < 0.1
    trials = list(compare(pairs, [methods.cca(), constant()], naming=naming, splits=1))
    assert trials[0].named == named and trials[0].inputs == 20
    assert choose(trials[::-1]).method.name == "cca"


@pytest.mark.parametrize("name", ["best", "paper"])
def test_calibration_tells_own_captions_from_others(name):
    pairs = anchors.create(coupled(120, noise=0.3))
    method = methods.named(name)
    found = calibrate(method, pairs)
    assert found.temperature > 0
    state = method.fit(pairs)
    unseen = coupled(40, noise=0.3, seed=5)
    left, right = (method.represent(state, unseen[m], m) for m in ("image", "text"))
    from asif_jax.methods.hubness import uncorrected

    scores = np.asarray(method.score(state, left, uncorrected(right)))
    own, other = np.diagonal(scores), scores[~np.eye(40, dtype=bool)]
    assert np.mean(own > found.threshold) > 0.6
    assert np.mean(other < found.threshold) > 0.5


def test_few_of_those_that_belong_together_stay_below_the_threshold():
    own = np.random.default_rng(0).normal(size=200)
    for share in (0.01, 0.2):
        found = float(fit_threshold(own, share=share))
        assert found == pytest.approx(np.quantile(own, share), abs=1e-6)
        np.testing.assert_allclose(jax.jit(fit_threshold)(own, share=share), found, rtol=1e-6)


def test_unusable_requests():
    pairs = anchors.create(coupled(5, noise=0.1))
    with pytest.raises(ValueError, match="5 of 5"):
        list(compare(pairs, [methods.cca()], held_out=5))
    with pytest.raises(ValueError, match="0 splits"):
        list(compare(pairs, [methods.cca()], splits=0))
    with pytest.raises(ValueError, match="image"):
        list(compare(anchors.create({"image": np.eye(4)}), [methods.cca()]))
    with pytest.raises(ValueError, match="got 2 pairs"):
        calibrate(methods.cca(), anchors.create(coupled(2, noise=0.1)))
    with pytest.raises(ValueError, match="got none"):
        fit_threshold([])
