import numpy as np

from asif_jax.cli.rendering_evaluation import (
    classification_json,
    classification_lines,
    retrieval_json,
    retrieval_lines,
)
from asif_jax.jobs.evaluate.classification import Classification
from asif_jax.jobs.evaluate.intervals import Figure
from asif_jax.jobs.evaluate.retrieval import Direction, SetRetrieval


def classification(classes, confusion):
    figure = Figure(0.5, 0.4, 0.6)
    shares = np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1)
    return Classification(
        tuple(classes), int(confusion.sum()), 0, figure, figure, figure,
        tuple(Figure(share, 0.0, 1.0) for share in shares),
        tuple(confusion.sum(axis=1).tolist()), confusion, (),
    )  # fmt: skip


def test_text_shows_the_hardest_classes_first():
    confusion = np.asarray([[3, 1, 0], [0, 0, 2], [0, 0, 0]])
    lines = classification_lines(classification(("cat", "dog", "elk"), confusion))
    assert [line.split() for line in lines[-2:]] == [
        ["dog", "2", "0.000", "[0.000,", "1.000]", "elk", "(2)"],
        ["cat", "4", "0.750", "[0.000,", "1.000]", "dog", "(1)"],
    ]
    assert lines[1].split() == ["top-1", "0.500", "[0.400,", "0.600]", "0.333"]
    many = classification_lines(classification(map(str, range(100)), np.diag(np.arange(1, 101))))
    assert many[5].startswith("the 10 hardest of 100 classes")
    assert len(many) == 4 + 2 + 10


def test_json_keeps_what_is_not_zero():
    confusion = np.asarray([[3, 1, 0], [0, 0, 2], [0, 0, 0]])
    found = classification_json(classification(("cat", "dog", "elk"), confusion))
    assert found["confusion"] == [
        {"class": "cat", "named": "cat", "images": 3},
        {"class": "cat", "named": "dog", "images": 1},
        {"class": "dog", "named": "elk", "images": 2},
    ]
    assert found["per_class"][2] == {"class": "elk", "images": 0, "value": None}
    assert found["top_1"] == {"value": 0.5, "low": 0.4, "high": 0.6}


def test_lines_and_json_of_retrieval_agree():
    def direction(queries, first):
        recall = {k: Figure(first + k / 100, 0.1, 0.9) for k in (1, 5, 10)}
        return Direction(queries, recall, {1: 0.04, 5: 0.2, 10: 0.4}, Figure(3.0, 2.0, 5.0))

    found = SetRetrieval(23, 0, direction(23, 0.3), direction(45, 0.4), ())
    lines = retrieval_lines(found)
    row = next(line for line in lines if line.startswith("text to image"))
    numbers = retrieval_json(found)
    assert f"{numbers['text_to_image']['recall']['5']['value']:.3f}" in row
    assert (numbers["images"], numbers["captions"]) == (23, 45)
    assert numbers["image_to_text"]["median_rank"] == {"value": 3.0, "low": 2.0, "high": 5.0}
    assert row.endswith("3 [2, 5]")
