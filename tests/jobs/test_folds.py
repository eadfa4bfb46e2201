import math

import numpy as np
import oracle
import pytest
import toy

from asif_jax import methods
from asif_jax.jobs.demo import folds as evaluation
from asif_jax.jobs.embedding.memory import embed_pairs
from asif_jax.jobs.evaluate.classification import classification
from asif_jax.jobs.evaluate.retrieval import chance_recall

PAPER = methods.paper(k=9, p=3.0)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    pairs = toy.write_pairs(tmp_path_factory.mktemp("pairs"), 42, captions=2)
    return embed_pairs(pairs, toy.encoders(), progress=False)


@pytest.fixture(scope="module")
def folds(embedded):
    return list(evaluation.cross_validation(embedded, method=PAPER, folds=4))


def test_folds_part_the_pairs(embedded, folds):
    assert sorted(np.concatenate([fold.held_out for fold in folds])) == list(range(42))
    for fold in folds:
        assert sorted([*fold.held_out, *fold.members]) == list(range(42))
        assert (embedded.owners[fold.captions] == np.repeat(fold.held_out, 2)).all()


def test_folds_follow_the_seed(embedded, folds):
    again = next(iter(evaluation.cross_validation(embedded, method=PAPER, folds=4)))
    other = next(iter(evaluation.cross_validation(embedded, method=PAPER, folds=4, seed=1)))
    np.testing.assert_array_equal(again.held_out, folds[0].held_out)
    assert other.held_out.tolist() != folds[0].held_out.tolist()


def test_a_rule_sees_the_anchors_alone(embedded):
    fold = next(evaluation.cross_validation(embedded, method=methods.paper(), folds=4))
    assert fold.images.values.shape[-1] == math.ceil(len(fold.members) / 5)
    assert float(fold.model.state.p) == 4.0


def test_retrieval_matches_oracle(embedded, folds):
    result = evaluation.retrieval(embedded, folds)
    for name, turned in (("image_to_text", False), ("text_to_image", True)):
        ranks, chance = [], []
        for fold in folds:
            scores = np.asarray(fold.model.score(fold.images, fold.texts))
            own = embedded.owners[fold.captions] == fold.held_out[:, None]
            ranks.append(oracle.best_rank(*((scores.T, own.T) if turned else (scores, own))))
            right, items = (1, len(fold.held_out)) if turned else (2, len(fold.captions))
            chance += [chance_recall(np.asarray([right]), items, k=5)] * len(ranks[-1])
        measured, ranks = getattr(result, name), np.concatenate(ranks)
        assert measured.queries == len(ranks)
        assert measured.chance[5] == pytest.approx(np.mean(chance))
        for k in (1, 5, 10):
            figure = measured.recall[k]
            assert figure.value == pytest.approx(np.mean(ranks <= k))
            assert measured.chance[k] < figure.low <= figure.value <= figure.high
        assert measured.median_rank.value == pytest.approx(np.median(ranks))


def test_representations_match_oracle(embedded, folds):
    fold = folds[0]
    anchors, queries = embedded.caption_means()[fold.members], embedded.captions[fold.captions]
    # Colours tie, up to rounding, so the values are compared and not the anchors.
    expected = np.sort(oracle.dense_representation(queries, anchors, k=9, p=3.0))[:, -9:]
    np.testing.assert_allclose(np.sort(fold.texts.values), expected, atol=1e-5)


def test_zero_shot_names_the_unseen(embedded, folds):
    names = list(toy.COLORS)
    prompts = np.asarray(list(toy.COLORS.values()), np.float32)[:, None]
    scores = evaluation.zero_shot(embedded, folds, prompts)
    predicted = scores.argmax(axis=-1)
    truth = [names.index(pair.captions[0].split()[0]) for pair in embedded.pairs]
    assert scores.shape == (42, 7)
    # White and grey have one direction, all else is told apart.
    told = [name not in ("white", "grey") for name in np.asarray(names)[truth]]
    assert (predicted == truth)[told].all()
    found = classification(tuple(names), np.asarray(truth), scores)
    assert found.top1.value == pytest.approx(np.mean(predicted == truth))
    assert (found.images, found.own, np.trace(found.confusion)) == (42, 0, sum(predicted == truth))


def test_impossible_requests_are_refused(embedded):
    with pytest.raises(ValueError, match="at least 50 pairs: got 42"):
        list(evaluation.cross_validation(embedded, method=PAPER, folds=50))
