"""One pair more changes no score by more than that pair does: the rules have no steps."""

import itertools

import numpy as np
import pytest
from method_cases import coupled, scores

from asif_jax import methods
from asif_jax.core import anchors
from asif_jax.methods import rules
from asif_jax.methods.statistics import measure


@pytest.mark.parametrize("rule", [rules.exponent, rules.paper_p])
def test_exponents_are_continuous_and_grow(rule):
    counts = np.unique(np.geomspace(1, 3_000_000, 4000).astype(int))
    values = np.array([float(rule(n)) for n in counts[::8]])
    assert (np.diff(values) >= 0.0).all()
    for n in (499, 500, 501, 3_999, 4_000, 4_999, 5_000, 1_599_999):
        assert 0.0 <= float(rule(n + 1)) - float(rule(n)) <= 1e-3


def test_numbers_kept_never_jump():
    for rule in (rules.kept, rules.paper_k):
        assert all(0 <= rule(n + 1) - rule(n) <= 1 for n in range(1, 10_000))
        assert rule(1) == 1 and rule(1_600_000) == 800


def test_shrinkage_is_continuous_and_falls():
    def sums(n):
        pairs = coupled(2)
        live = np.ones(2, bool)
        found = measure(anchors.create(pairs)._replace(live=live))
        return found._replace(pairs=np.float32(n), counts={m: np.float32(n) for m in found.counts})

    for rule in (rules.cca_shrinkage, rules.whitening_shrinkage):
        values = [float(rule(sums(n), "image")) for n in (10, 47, 48, 49, 50, 500, 5_000)]
        assert (np.diff(values) <= 0.0).all()
        assert abs(values[2] - values[3]) < 0.1


WIDTH = {"d": 10, "e": 8}


def largest_step(found):
    return max(np.abs(b - a).max() for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("boundary", [500, 1_000, 5_000])
def test_scores_of_the_default_method_do_not_jump(boundary):
    pairs, queries = anchors.create(coupled(boundary + 2, **WIDTH)), coupled(20, seed=5, **WIDTH)
    method, found = methods.best(), []
    for n in range(boundary - 2, boundary + 3):
        some = pairs._replace(live=np.arange(boundary + 2) < n)
        found.append(scores(method, method.fit(some), queries))
    # Scores lie between -4 and 4, and one pair of some hundreds moves them a little.
    assert largest_step(found) < 0.05


def test_scores_do_not_jump_where_not_all_pairs_are_kept_any_more():
    pairs, queries = coupled(802, **WIDTH), coupled(20, seed=5, **WIDTH)
    method = methods.best()
    some = [{m: array[:n] for m, array in pairs.items()} for n in (799, 800, 801)]
    assert largest_step([scores(method, method.fit(few), queries) for few in some]) < 0.05
