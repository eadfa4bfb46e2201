"""A model that is edited is the model of the pairs that are left."""

import jax.numpy as jnp
import numpy as np
import pytest
from method_cases import TABLE, coupled, scores

from asif_jax import model as models
from asif_jax.core import anchors
from asif_jax.methods.hubness import uncorrected

CAPACITY = 24


def refitted(model):
    return models.create(model.anchors, model.pairs, {}, model.method)


def compare(model):
    queries = coupled(6, seed=77)
    found = scores(model.method, model.state, queries)
    again = refitted(model)
    np.testing.assert_allclose(found, scores(again.method, again.state, queries), atol=1e-5)


def insert(model, slots, pairs):
    rows = anchors.replace(model.anchors, slots, pairs)
    return models.edited(model, rows, added=models.rows_of(rows, slots))


def remove(model, slots):
    rows = anchors.remove(model.anchors, slots)
    return models.edited(model, rows, removed=models.rows_of(model.anchors, slots))


def start(name, count=18):
    pairs = anchors.create(coupled(count), capacity=CAPACITY)
    return models.create(pairs, range(CAPACITY), {}, TABLE[name][0])


@pytest.mark.parametrize("name", TABLE)
def test_edits_equal_a_refit(name):
    model = start(name)
    model = insert(model, [18, 19, 20], coupled(3, seed=3))
    compare(model)
    model = remove(model, [0, 19, 7])
    compare(model)
    # One slot is overwritten: its old pair goes, the new one comes.
    old = models.rows_of(model.anchors, [4])
    rows = anchors.replace(model.anchors, [4], coupled(1, seed=4))
    compare(models.edited(model, rows, added=models.rows_of(rows, [4]), removed=old))


@pytest.mark.parametrize("name", ["two_cosines", "with_square_root"])
def test_square_roots_switch_off_and_on_with_the_first_and_the_last_negative_entry(name):
    model = start(name)
    signed = coupled(2, seed=3)
    signed["image"][1, 0] = -1.0
    model = insert(model, [18, 19], signed)
    assert model.sums.negatives["image"] == 1.0
    compare(model)
    model = insert(model, [20], coupled(1, seed=8))
    compare(model)
    model = remove(model, [19])
    assert model.sums.negatives["image"] == 0.0
    compare(model)


@pytest.mark.parametrize("name", ["cca", "two_cosines"])
def test_two_hundred_edits_leave_no_trace(name):
    model, rng = start(name), np.random.default_rng(0)
    for number in range(100):
        slot = int(rng.integers(18))
        model = remove(model, [slot])
        model = insert(model, [slot], coupled(1, seed=number))
    compare(model)


def test_another_method_for_the_same_pairs():
    model = start("cca")
    other = models.with_method(model, TABLE["ridge"][0])
    assert other.method.name == "ridge"
    compare(other)


def test_classes_by_their_best_prompt_or_the_mean():
    model, queries = start("two_cosines"), coupled(6, seed=5)
    prompts = jnp.asarray(queries["text"]).reshape(3, 2, -1)
    # Labels are not corrected for hubs.
    texts = uncorrected(model.represent(queries["text"], "text"))
    each = np.asarray(model.score(model.represent(queries["image"], "image"), texts))
    best = models.class_scores(model, queries["image"], prompts)
    np.testing.assert_allclose(best, each.reshape(6, 3, 2).max(axis=-1), atol=1e-5)
    assert models.class_scores(model, queries["image"], prompts, rule="mean").shape == (6, 3)
    with pytest.raises(ValueError, match="max or mean"):
        models.represent_classes(model, prompts, rule="median")


def test_rows_of_no_slots_are_none():
    assert models.rows_of(start("cca").anchors, []) is None
