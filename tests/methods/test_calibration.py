import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_jax.methods import calibration


def surprise(scores, labels, temperature):
    """Float64 mean negative log-likelihood."""
    logits = np.asarray(scores, np.float64) / temperature
    logits -= logits.max(axis=-1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -logs[np.arange(len(labels)), labels].mean()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([1e-3, 1.0, 30.0]))
def test_no_other_temperature_is_better(seed, scale):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=[40, 5])
    # Labels drawn as likely as a temperature of 0.7 says.
    weights = np.exp(scores / 0.7)
    labels = np.array([rng.choice(5, p=row / row.sum()) for row in weights])
    scores *= scale
    found = float(calibration.fit_temperature(scores, labels))
    least = surprise(scores, labels, found)
    for other in found * np.geomspace(0.1, 10.0, 41):
        assert least <= surprise(scores, labels, other) + 1e-6


def test_the_true_temperature_is_found():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=[4000, 6])
    weights = np.exp(scores / 0.25)
    labels = np.array([rng.choice(6, p=row / row.sum()) for row in weights])
    assert float(calibration.fit_temperature(scores, labels)) == pytest.approx(0.25, rel=0.1)


def test_extremes_stay_finite():
    certain = calibration.fit_temperature(np.eye(3), [0, 1, 2])
    useless = calibration.fit_temperature(np.zeros([3, 3]), [0, 1, 2])
    assert certain > 0 and np.isfinite(useless)
    probabilities = calibration.probabilities(np.eye(3), certain)
    np.testing.assert_allclose(probabilities, np.eye(3), atol=1e-6)


def test_probabilities_under_jit_and_vmap():
    scores = np.random.default_rng(0).normal(size=[3, 20, 4]).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 4, size=[3, 20])
    together = jax.jit(jax.vmap(calibration.fit_temperature))(scores, labels)
    for s, y, temperature in zip(scores, labels, together, strict=True):
        np.testing.assert_allclose(temperature, calibration.fit_temperature(s, y), rtol=1e-4)
        np.testing.assert_allclose(calibration.probabilities(s, temperature).sum(-1), 1, rtol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3,\)"):
        calibration.fit_temperature(np.ones([2, 3]), [0, 1, 2])
