"""Figures of evaluations in words and for programs: classification, retrieval, tuning."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asif_jax.cli.rendering import fact_lines

if TYPE_CHECKING:
    from asif_jax.jobs.evaluate.classification import Classification
    from asif_jax.jobs.evaluate.retrieval import SetRetrieval
    from asif_jax.methods.tuning import Surface

_WORST = 10


def interval_facts() -> dict[str, Any]:
    """What the intervals of all figures are, for programs."""
    from asif_jax.jobs.evaluate.intervals import CONFIDENCE, RESAMPLES

    return {"confidence": CONFIDENCE, "resamples": RESAMPLES}


def evaluated_lines(facts: Mapping[str, Any], lines: Sequence[str]) -> list[str]:
    """An evaluation for people.

    Args:
      facts: about the model and the set, for programs.
      lines: the figures.

    Returns:
      All of it.
    """
    told = dict(facts)
    own = told.pop("own_images")
    if "templates" in told:
        told["prompts"] = f"{told['prompts']} of {len(told.pop('templates'))} templates"
    if own:
        told["own_images"] = f"{own} are among the model's pairs, so the figures are too high"
    about = interval_facts()
    interval = f"{about['confidence']:.0%} of {about['resamples']} bootstrap resamples"
    return [*fact_lines(told), "", *lines, "", f"[{interval} of the images]"]


def classification_lines(found: "Classification") -> list[str]:
    """Zero-shot classification for people.

    Args:
      found: from `classify_set`.

    Returns:
      The lines.
    """
    chance = 1 / len(found.classes)
    lines = [f"{'':16}{'right':>23}{'chance':>10}"]
    shown = {"top-1": (found.top1, chance), "top-5": (found.top5, 5 * chance)}
    shown["mean per class"] = found.mean_per_class, chance
    for name, (figure, by_chance) in shown.items():
        if figure is not None:
            lines.append(f"{name:16}{figure!s:>23}{by_chance:>10.3f}")
    return [*lines, "", *_class_lines(found)]


def _class_lines(found: "Classification") -> list[str]:
    """The classes that have images, the hardest first; of many classes only those."""
    counts = found.confusion.sum(axis=1)
    present = [index for index, count in enumerate(counts.tolist()) if count]
    order = sorted(present, key=lambda index: found.per_class[index].value)
    few = len(order) > 2 * _WORST
    title = f"the {_WORST} hardest of {len(order)} classes" if few else "class"
    width = max(len(title), *(len(name) for name in found.classes)) + 2
    lines = [f"{title:{width}}{'images':>8}{'right':>23}  most often taken for"]
    for index in order[: _WORST if few else None]:
        wrong = found.confusion[index].copy()
        wrong[index] = 0
        taken = f"{found.classes[wrong.argmax()]} ({wrong.max()})" if wrong.any() else ""
        name, share = found.classes[index], str(found.per_class[index])
        lines.append(f"{name:{width}}{counts[index]:>8}{share:>23}  {taken}".rstrip())
    return lines


def classification_json(found: "Classification") -> dict[str, Any]:
    """Zero-shot classification for programs.

    Args:
      found: from `classify_set`.

    Returns:
      The figures. Of the confusion matrix, what is not zero.
    """
    counts = found.confusion.sum(axis=1).tolist()
    return {
        "images": found.images,
        "top_1": found.top1._asdict(),
        "top_5": found.top5 and found.top5._asdict(),
        "mean_per_class": found.mean_per_class._asdict(),
        "chance": 1 / len(found.classes),
        "per_class": [
            {"class": name, "images": count} | (share._asdict() if count else {"value": None})
            for name, count, share in zip(found.classes, counts, found.per_class, strict=True)
        ],
        "confusion": [
            {"class": found.classes[i], "named": found.classes[j], "images": count}
            for i, row in enumerate(found.confusion.tolist())
            for j, count in enumerate(row)
            if count
        ],
    }


def retrieval_lines(found: "SetRetrieval") -> list[str]:
    """Retrieval for people.

    Args:
      found: from `retrieve_set`.

    Returns:
      The lines.
    """
    places = list(found.image_to_text.recall)
    heads = "".join(f"{f'recall@{k}':>23}" for k in places)
    lines = [f"{'':16}{heads}{'median rank':>20}"]
    for name, direction in (
        ("image to text", found.image_to_text),
        ("text to image", found.text_to_image),
    ):
        cells = "".join(f"{direction.recall[k]!s:>23}" for k in places)
        rank = direction.median_rank
        lines.append(f"{name:16}{cells}{f'{rank.value:g} [{rank.low:g}, {rank.high:g}]':>20}")
        chances = "".join(f"{f'{direction.chance[k]:.3f}':>8}{'':15}" for k in places)
        lines.append(f"{'  by chance':16}{chances}".rstrip())
    return lines


def retrieval_json(found: "SetRetrieval") -> dict[str, Any]:
    """Retrieval for programs.

    Args:
      found: from `retrieve_set`.

    Returns:
      The figures.
    """
    return {"images": found.images, "captions": found.text_to_image.queries} | {
        name: {
            "recall": {str(k): figure._asdict() for k, figure in direction.recall.items()},
            "chance": {str(k): chance for k, chance in direction.chance.items()},
            "median_rank": direction.median_rank._asdict(),
        }
        for name, direction in (
            ("image_to_text", found.image_to_text),
            ("text_to_image", found.text_to_image),
        )
    }


def surface_json(surface: "Surface") -> dict[str, Any]:
    """Recall at every k and p that was tried, for programs.

    Args:
      surface: from `tuning.tune`.

    Returns:
      The grid, and the mean over splits and both directions at each of its points.
    """
    mean = surface.recall.mean(axis=(0, -1))
    return {"ks": surface.ks.tolist(), "ps": surface.ps.tolist(), "surface": mean.tolist()}


def tuned_lines(facts: Mapping[str, Any], surface: "Surface") -> list[str]:
    """A choice of k and p for people.

    Args:
      facts: the choice and what it was made of, for programs.
      surface: from `tuning.tune`.

    Returns:
      The lines.
    """
    each = "; ".join(f"k = {k}, p = {p:g}" for k, p in facts["each"])
    chosen = f"k = {facts['k']}, p = {facts['p']:g}"
    held_out = f"{facts['held_out']} of {facts['pairs']} pairs, {facts['splits']} times"
    deviation = f"deviation {facts['deviation']:.3f} over splits"
    lines = [
        f"{chosen}, before k = {facts['k_before']}, p = {facts['p_before']:g}",
        f"recall@{surface.at} {facts['recall']:.3f}, {deviation}",
        f"held out: {held_out}; by themselves they would choose {each}",
        "",
        " " * 8 + "".join(f"p = {p:<5g}" for p in surface.ps),
    ]
    mean = surface.recall.mean(axis=(0, -1))
    for k, row in zip(surface.ks, mean, strict=True):
        lines.append(f"k = {k:<4d}" + "".join(f"{recall:<9.3f}" for recall in row))
    ending = "written into the model" if facts["applied"] else "--apply writes it into the model"
    return [*lines, "", ending]
