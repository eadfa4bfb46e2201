import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asif_jax as asif

D_IMAGE, D_TEXT = 6, 4


def pairs(seed, count):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.normal(size=[count, D_IMAGE]).astype(np.float32),
        "text": rng.normal(size=[count, D_TEXT]).astype(np.float32),
    }


def images(seed=50, count=5):
    return np.random.default_rng(seed).normal(size=[count, D_IMAGE]).astype(np.float32)


def scores(model, k=6):
    queries = asif.represent(images(), model, modality="image", k=k)
    prompts = asif.represent(pairs(51, 3)["text"], model, modality="text", k=k)
    return np.asarray(asif.similarity(queries, prompts))


def test_create_normalizes_and_pads():
    model = asif.anchors.create(pairs(0, 10), capacity=16)
    assert model.capacity == 16
    assert model.live.tolist() == [True] * 10 + [False] * 6
    expected = oracle.unit(pairs(0, 10)["image"])
    np.testing.assert_allclose(model.embeddings["image"][:10], expected, atol=1e-6)
    assert not np.asarray(model.embeddings["text"])[10:].any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_represent_is_projection_on_the_live_pairs(dtype):
    model = asif.anchors.create(pairs(0, 10), capacity=16, dtype=dtype)
    assert model.embeddings["text"].dtype == dtype
    result = asif.represent(images(), model, modality="image", k=4, p=2.0)
    rounded = np.asarray(asif.normalize(images()).astype(dtype), np.float64)
    similarities = rounded @ np.asarray(model.embeddings["image"], np.float64).T
    expected = oracle.sparsify(similarities, k=4, p=2.0, live=model.live)
    np.testing.assert_allclose(oracle.to_dense(result), expected, atol=2e-6)


def test_spare_capacity_changes_no_score():
    tight = asif.anchors.create(pairs(0, 10))
    roomy = asif.anchors.create(pairs(0, 10), capacity=64)
    np.testing.assert_allclose(scores(tight), scores(roomy), atol=1e-6)


def test_insert_equals_building_with_the_pairs():
    everything = pairs(0, 10)
    model = asif.anchors.create({m: a[:7] for m, a in everything.items()}, capacity=12)
    model, slots = asif.anchors.insert(model, {m: a[7:] for m, a in everything.items()})
    assert slots.tolist() == [7, 8, 9]
    chex.assert_trees_all_equal(model, asif.anchors.create(everything, capacity=12))


def test_removing_gives_back_the_former_scores_bit_for_bit():
    model = asif.anchors.create(pairs(0, 10), capacity=16)
    larger, slots = asif.anchors.insert(model, pairs(1, 4))
    assert (scores(larger) != scores(model)).any()
    np.testing.assert_array_equal(scores(asif.anchors.remove(larger, slots)), scores(model))


def test_editing_compiles_once():
    model = asif.anchors.create(pairs(0, 30), capacity=200)
    model, slots = asif.anchors.insert(model, pairs(1, 100))
    model = asif.anchors.remove(model, slots)
    scores(model)
    edits = (asif.anchors.insert, asif.anchors.remove, asif.represent, asif.similarity)
    before = [edit._cache_size() for edit in edits]
    model, slots = asif.anchors.insert(model, pairs(2, 100))
    scores(model)
    scores(asif.anchors.remove(model, slots))
    assert [edit._cache_size() for edit in edits] == before


def test_insert_takes_the_lowest_free_slots():
    model = asif.anchors.create(pairs(0, 6))
    model = asif.anchors.remove(model, [4, 1])
    model, slots = asif.anchors.insert(model, pairs(1, 2))
    assert slots.tolist() == [1, 4]
    assert model.live.all()


def test_insert_beyond_capacity_leaves_out_the_rest():
    model = asif.anchors.create(pairs(0, 3), capacity=4)
    fuller, slots = asif.anchors.insert(model, pairs(1, 3))
    assert slots.tolist() == [3, 4, 4]
    full, nowhere = asif.anchors.insert(fuller, pairs(2, 1))
    assert nowhere.tolist() == [4]
    chex.assert_trees_all_equal(fuller, full)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_insert_leaves_out_non_finite_pairs(modality):
    new = pairs(1, 3)
    new[modality][1, 2] = np.nan
    model, slots = asif.anchors.insert(asif.anchors.create(pairs(0, 3), capacity=8), new)
    assert slots.tolist() == [3, 8, 4]
    good = {m: a[[0, 2]] for m, a in pairs(1, 3).items()}
    expected, _ = asif.anchors.insert(asif.anchors.create(pairs(0, 3), capacity=8), good)
    chex.assert_trees_all_equal(model, expected)


def test_replace_overwrites_and_skips_bad_rows_and_slots():
    model = asif.anchors.create(pairs(0, 4), capacity=6)
    new = pairs(1, 4)
    new["text"][2] = np.inf
    result = asif.anchors.replace(model, [0, 5, 1, 6], new)
    expected = np.array(model.embeddings["image"])
    expected[[0, 5]] = oracle.unit(new["image"][:2])
    np.testing.assert_allclose(result.embeddings["image"], expected, atol=1e-6)
    assert result.live.tolist() == [True, True, True, True, False, True]


@pytest.mark.parametrize("slot", [-1, 4, 1000])
def test_slots_outside_are_ignored(slot):
    model = asif.anchors.create(pairs(0, 4))
    chex.assert_trees_all_equal(asif.anchors.remove(model, [slot]), model)
    chex.assert_trees_all_equal(asif.anchors.replace(model, [slot], pairs(1, 1)), model)


def test_edits_compose_inside_one_program():
    @jax.jit
    def step(model, batch):
        model, slots = asif.anchors.insert(model, batch)
        found = asif.represent(images(), model, modality="image", k=3).indices
        return asif.anchors.remove(model, slots[:1]), found

    model = asif.anchors.create(pairs(0, 4), capacity=20)
    batches = {m: np.stack([pairs(s, 3)[m] for s in (1, 2)]) for m in ("image", "text")}
    scanned, found = jax.lax.scan(step, model, batches)
    assert found.shape == (2, 5, 3)
    assert int(scanned.live.sum()) == 4 + 2 * 2


def test_vmap_over_models():
    models = [asif.anchors.create(pairs(seed, 5), capacity=8) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    edited = jax.vmap(asif.anchors.remove)(stacked, jnp.array([[1], [3]]))
    for row, (model, slot) in enumerate(zip(models, [1, 3], strict=True)):
        expected = asif.anchors.remove(model, [slot])
        chex.assert_trees_all_equal(jax.tree.map(lambda leaf, i=row: leaf[i], edited), expected)


def test_gradient_with_respect_to_the_anchors():
    model = asif.anchors.create(pairs(0, 10), capacity=12)

    def loss(embeddings):
        moved = model._replace(embeddings={**model.embeddings, "image": embeddings})
        return asif.represent(images(), moved, modality="image", k=4).values.sum()

    gradient = jax.grad(loss)(model.embeddings["image"])
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[:10]).max() > 0
    assert not np.asarray(gradient[10:]).any()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=8))
def test_any_sequence_of_edits_keeps_the_books(steps):
    model = asif.anchors.create(pairs(0, 5), capacity=10)
    book = {slot: oracle.unit(pairs(0, 5)["text"])[slot] for slot in range(5)}
    for seed, (adding, slot) in enumerate(steps):
        if adding:
            new = pairs(100 + seed, 1)
            model, slots = asif.anchors.insert(model, new)
            free = min(set(range(10)) - book.keys(), default=10)
            assert slots.tolist() == [free]
            if free < 10:
                book[free] = oracle.unit(new["text"])[0]
        else:
            model = asif.anchors.remove(model, [slot])
            book.pop(slot, None)
    assert set(np.flatnonzero(model.live)) == book.keys()
    for slot, row in book.items():
        np.testing.assert_allclose(model.embeddings["text"][slot], row, atol=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "options", "message"),
    [
        ({}, {}, r"\{\}"),
        ({"image": np.ones([3])}, {}, r"\(3,\)"),
        ({"image": np.ones([3, 2]), "text": np.ones([4, 2])}, {}, r"\(3, 2\).*\(4, 2\)"),
        ({"image": np.ones([0, 2])}, {}, "at least one pair"),
        ({"image": np.array([[1.0], [np.nan], [np.inf]])}, {}, "image.* 2 of 3 rows.*row 1"),
        ({"image": np.ones([3, 2])}, {"capacity": 2}, "3 slots to 2"),
    ],
)
def test_create_refuses(embeddings, options, message):
    with pytest.raises(ValueError, match=message):
        asif.anchors.create(embeddings, **options)


@pytest.mark.parametrize(
    "new",
    [
        {"image": np.ones([2, D_IMAGE])},
        {"image": np.ones([2, D_IMAGE]), "text": np.ones([2, D_TEXT + 1])},
        {"image": np.ones([2, D_IMAGE]), "text": np.ones([3, D_TEXT])},
        {"image": np.ones([2, D_IMAGE]), "audio": np.ones([2, D_TEXT])},
    ],
)
def test_edits_refuse_pairs_of_other_shapes(new):
    with pytest.raises(ValueError, match=r"the model takes .*\(2, 6\)"):
        asif.anchors.insert(asif.anchors.create(pairs(0, 3)), new)


def test_unknown_modality_is_named():
    with pytest.raises(ValueError, match="'audio' among \\['image', 'text'\\]"):
        asif.represent(images(), asif.anchors.create(pairs(0, 3)), modality="audio", k=1)


def test_replace_refuses_misaligned_slots():
    with pytest.raises(ValueError, match=r"\(1,\).*\(2,\)"):
        asif.anchors.replace(asif.anchors.create(pairs(0, 3)), [0], pairs(1, 2))
