import jax.numpy as jnp
import numpy as np
import pytest

from asif_jax.jobs.evaluate.intervals import Figure, measure


def both(rows):
    return {"mean": jnp.mean(rows), "columns": jnp.mean(rows, axis=0)}


def test_figures_are_the_statistic_on_all_rows():
    rows = np.random.default_rng(0).normal(size=[200, 3]).astype(np.float32)
    found = measure(both, rows)
    assert found["mean"].value == pytest.approx(rows.mean(), abs=1e-6)
    assert [figure.value for figure in found["columns"]] == pytest.approx(rows.mean(0), abs=1e-6)
    for figure, column in zip(found["columns"], rows.T, strict=True):
        # The bootstrap of a mean is close to normal at 200 rows.
        deviation = 1.96 * column.std() / np.sqrt(200)
        assert figure[1:] == pytest.approx(
            (column.mean() - deviation, column.mean() + deviation), abs=0.03
        )


def test_figures_are_the_same_every_time():
    rows = np.random.default_rng(1).normal(size=[50, 2]).astype(np.float32)
    assert measure(both, rows) == measure(both, rows)


def test_figures_in_words():
    assert str(Figure(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"
