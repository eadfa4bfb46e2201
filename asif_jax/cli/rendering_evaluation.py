"""Figures of evaluations in words and for programs: classification, retrieval, tuning."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asif_jax.cli.rendering import fact_lines, in_words, method_facts

if TYPE_CHECKING:
    from asif_jax.jobs.evaluate.classification import Classification
    from asif_jax.jobs.evaluate.retrieval import SetRetrieval
    from asif_jax.methods.comparison import Trial

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
    told["method"] = in_words(told["method"], told.pop("settings"))
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
    if found.none:
        lines.append(f"{found.none} images share no pair with any class and count as wrong")
    return [*lines, "", *_class_lines(found)]


def _class_lines(found: "Classification") -> list[str]:
    """The classes that have images, the hardest first; of many classes only those."""
    counts = found.counts
    present = [index for index, count in enumerate(counts) if count]
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
    return {
        "images": found.images,
        "named_none": found.none,
        "top_1": found.top1._asdict(),
        "top_5": found.top5 and found.top5._asdict(),
        "mean_per_class": found.mean_per_class._asdict(),
        "chance": 1 / len(found.classes),
        "per_class": [
            {"class": name, "images": count} | (share._asdict() if count else {"value": None})
            for name, count, share in zip(found.classes, found.counts, found.per_class, strict=True)
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


def tuned_json(trials: "Sequence[Trial]", best: "Trial") -> dict[str, Any]:
    """What methods reached, for programs.

    Args:
      trials: of all that was tried.
      best: the one that was chosen.

    Returns:
      The choice, and the figures of each trial.
    """

    def about(trial: "Trial") -> dict[str, Any]:
        named = {} if trial.named is None else {"named_right": trial.named}
        figures = {"recall": float(trial.recall.mean()), "deviation": _deviation(trial), **named}
        return {**method_facts(trial.method), **figures}

    tried = {"at": best.at, "held_out": best.held_out, "labelled": best.inputs}
    return {**about(best), **tried, "trials": [about(trial) for trial in trials]}


def tuned_lines(facts: Mapping[str, Any], trials: "Sequence[Trial]", best: "Trial") -> list[str]:
    """What methods reached, for people.

    Args:
      facts: about the model, for programs.
      trials: of all that was tried.
      best: the one that was chosen.

    Returns:
      The lines.
    """
    names = [in_words(trial.method.name, trial.method.settings) for trial in trials]
    width = max(map(len, [*names, "method"])) + 2
    naming = best.named is not None
    lines = [f"{'method':{width}}{f'recall@{best.at}':>17}" + (f"{'named right':>16}" * naming)]
    for name, trial in zip(names, trials, strict=True):
        recall = f"{trial.recall.mean():.3f} ± {_deviation(trial):.3f}"
        lines.append(f"{name:{width}}{recall:>17}" + _named_cell(trial))
    measured = "the product of both" if naming else f"recall@{best.at}"
    held_out = f"{best.held_out} of {facts['pairs']} pairs, {facts['splits']} times"
    before = in_words(facts["method_before"], facts["settings_before"])
    after = in_words(best.method.name, best.method.settings)
    lines += [
        "",
        f"best by {measured}: {after} (before: {before})",
        f"recall@{best.at}: among pairs held out, {held_out}; ± is the deviation over these",
    ]
    if naming:
        lines.append(f"named right: of {best.inputs} labelled images; ± is the standard error")
    else:
        lines.append("what suits other images may differ: --labelled DATA tries that as well")
    ending = "written into the model" if facts["applied"] else "--apply writes it into the model"
    return [*lines, ending]


def _named_cell(trial: "Trial") -> str:
    if trial.named is None:
        return ""
    error = math.sqrt(trial.named * (1 - trial.named) / max(trial.inputs, 1))
    return f"{f'{trial.named:.3f} ± {error:.3f}':>16}"


def _deviation(trial: "Trial") -> float:
    return float(trial.recall.std(ddof=1)) if len(trial.recall) > 1 else 0.0
