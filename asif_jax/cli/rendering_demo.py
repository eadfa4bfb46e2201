"""What the demonstration found, in words and for programs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asif_jax.jobs.demo.demo import Demonstration


def facts(demo: "Demonstration") -> dict[str, str]:
    """The figures of a demonstration in words, name -> value.

    Args:
      demo: what was found.

    Returns:
      The facts, in the order to show them.
    """
    given = "".join(f", {name} = {value}" for name, value in demo.settings.items())
    return {
        "pairs": f"{demo.pairs} used, {len(demo.skipped)} skipped",
        "encoders": " and ".join(demo.encoders.values()),
        "method": f"{demo.method}{given}, fitted to {demo.anchors} pairs at a time",
        "tried on": f"unseen pairs, {demo.folds}-fold cross-validation",
        "building took": f"{demo.building:.2f} s from embeddings, "
        f"{demo.building + demo.encoding:.1f} s with the encoders",
    }


def lines(demo: "Demonstration") -> list[str]:
    """A demonstration for people.

    Args:
      demo: what was found.

    Returns:
      The lines.
    """
    told = [f"{name}: {value}" for name, value in facts(demo).items()]
    places = list(next(iter(demo.retrieval.directions.values())).recall)
    told += ["", f"{'':16}" + "".join(f"{f'recall@{k}':>23}" for k in places)]
    for name, result in demo.retrieval.directions.items():
        cells = (f"{v.value:.3f} (chance {result.chance[k]:.3f})" for k, v in result.recall.items())
        told.append(f"{name.replace('_', ' '):16}" + "".join(f"{cell:>23}" for cell in cells))
    if demo.classes:
        labels = " / ".join(demo.classes.classes)
        chance = 1 / len(demo.classes.classes)
        told += ["", f"{labels}: {demo.classes.top1.value:.1%} right (chance {chance:.1%})"]
    return [*told, *_example_lines(demo), *_search_lines(demo)]


def _example_lines(demo: "Demonstration") -> list[str]:
    told = []
    for example in demo.examples:
        told += ["", f"{example.image.name}, unseen: {example.caption}"]
        told += [f"  {g.score:.2f}  {g.caption}{'  (right)' * g.correct}" for g in example.guesses]
        because = (f"{item.caption} {item.contribution:.3f}" for item in example.evidence)
        told.append("  because of: " + "; ".join(because))
    return told


def _search_lines(demo: "Demonstration") -> list[str]:
    told = []
    for search in demo.searches:
        found = "; ".join(f"{item.caption} {item.score:.2f}" for item in search.found[:3])
        told += ["", f"“{search.query}” finds: {found}"]
    return told


def to_json(demo: "Demonstration") -> dict[str, Any]:
    """A demonstration for programs.

    Args:
      demo: what was found.

    Returns:
      What `printing.print_json` takes.
    """
    classes = demo.classes and {
        "labels": demo.classes.classes,
        "accuracy": demo.classes.top1,
        "confusion": demo.classes.confusion.tolist(),
    }
    return {
        "pairs": demo.pairs,
        "skipped": demo.skipped,
        "encoders": demo.encoders,
        "folds": demo.folds,
        "anchors": demo.anchors,
        "method": demo.method,
        "settings": demo.settings,
        "retrieval": demo.retrieval.directions,
        "classes": classes,
        "examples": demo.examples,
        "searches": demo.searches,
        "seconds": {"building": demo.building, "encoding": demo.encoding},
    }
