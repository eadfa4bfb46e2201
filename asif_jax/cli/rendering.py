"""Results in words: lines for people, and values with names for programs."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asif_jax.jobs.embedding.into_store import Embedded
    from asif_jax.jobs.predict import Found, Named, Reason
    from asif_jax.methods import Method
    from asif_jax.store import Compacted, EncoderRecord, StoredPair, Version
    from asif_jax.store.proof import FileSearch, Scores

_SHOWN = 10


def fact_lines(facts: Mapping[str, Any]) -> list[str]:
    """Facts for a terminal, a line each.

    Args:
      facts: name -> value.

    Returns:
      The lines.

    Example:
      >>> fact_lines({"rows_dropped": 3})
      ['rows dropped: 3']
    """
    return [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()]


def embedded_facts(done: "Sequence[Embedded]") -> dict[str, Any]:
    """What runs of the batch job did, for programs.

    Args:
      done: what each of them says.

    Returns:
      Counts, and the speed, which is None where no image was embedded.
    """
    images, seconds = sum(run.images for run in done), sum(run.seconds for run in done)
    return {
        "added": sum(run.added for run in done),
        "present": sum(run.present for run in done),
        "skipped": sum(len(run.skipped) for run in done),
        "images_per_second": images / seconds if images else None,
        "waiting_share": sum(run.waited for run in done) / seconds if images else None,
    }


def embedded_lines(facts: Mapping[str, Any]) -> list[str]:
    """What runs of the batch job did, for people.

    Args:
      facts: those of `embedded_facts`, and more.

    Returns:
      The lines.
    """
    told = dict(facts)
    present, speed, waiting = (
        told.pop(name) for name in ("present", "images_per_second", "waiting_share")
    )
    if present:
        told["in_it_already"] = present
    if speed is not None:
        told["speed"] = f"{speed:.1f} images/s, {waiting:.0%} of the time reading them"
    return fact_lines(told)


def named_lines(named: "Sequence[Named]") -> list[str]:
    """Images with their labels.

    Args:
      named: from `predict.name_images`.

    Returns:
      For each image a line with its name and one for each label, with its probability where the
      model knows one; and a line that says so where none of the labels fits.
    """
    lines = []
    for item in named:
        lines.append(item.image)
        lines += ["  none of these labels"] * item.none
        for guess in item.guesses:
            chance = "" if guess.probability is None else f"  {guess.probability:4.0%}"
            lines.append(f"  {guess.score:6.3f}{chance}  {guess.label}")
    return lines


def found_lines(found: "Sequence[Found]") -> list[str]:
    """Images that a sentence found.

    Args:
      found: from `predict.search_images`.

    Returns:
      For each image a line with its score and name and, if it has captions, one with the first.
    """
    lines = []
    for item in found:
        lines.append(f"{item.score:.3f}  {item.image}")
        lines += [f"       {caption}" for caption in item.captions[:1]]
    return lines


def reason_lines(score: float, reasons: "Sequence[Reason]") -> list[str]:
    """A score and the pairs behind it.

    Args:
      score: the score.
      reasons: the pairs.

    Returns:
      The lines.
    """
    because = ", because of these pairs:" if reasons else ": no pair in common"
    lines = [f"  {r.contribution:6.3f}  {r.pair.captions[0]}  ({r.pair.image})" for r in reasons]
    return [f"score {score:.3f}{because}", *lines]


def method_facts(method: "Method") -> dict[str, Any]:
    """The method that pairs become scores by, for programs.

    Args:
      method: the method.

    Returns:
      Its name and the settings that are not left to a rule.
    """
    return {"method": method.name, "settings": dict(method.settings)}


def in_words(name: str, settings: Mapping[str, Any]) -> str:
    """A method and its settings, for people."""
    given = (f"{setting} = {value}" for setting, value in settings.items())
    return ", ".join([name, *given])


def info_facts(
    pairs: int,
    method: Mapping[str, Any],
    encoders: "Mapping[str, EncoderRecord]",
    dimensions: Mapping[str, int],
) -> dict[str, Any]:
    """What a model holds, for programs.

    Args:
      pairs: how many.
      method: what it is used by.
      encoders: modality -> the encoder of its embeddings.
      dimensions: modality -> d.

    Returns:
      The facts.
    """
    about = {m: {**r._asdict(), "dimensions": dimensions[m]} for m, r in encoders.items()}
    return {"pairs": pairs, **method, "encoders": about}


def info_lines(facts: Mapping[str, Any]) -> list[str]:
    """What a model holds, for people.

    Args:
      facts: from `info_facts`.

    Returns:
      The lines.
    """
    told = dict(facts)
    told["method"] = in_words(told["method"], told.pop("settings"))
    for modality, about in told.pop("encoders").items():
        told[f"{modality} encoder"] = (
            f"{about['source']} ({about['identity']}), {about['dimensions']} dimensions"
        )
    return fact_lines(told)


def version_lines(versions: "Sequence[Version]") -> list[str]:
    """Versions of a store.

    Args:
      versions: from `store.log`.

    Returns:
      A line each.
    """
    lines = []
    for version in versions:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(version.time))
        change = f"+{version.added} -{version.removed}"
        names = "".join(f" [{name}]" for name in version.names)
        counts = f"{version.pairs:9} pairs  {change:>12}"
        lines.append(f"{version.number:6}  {when}  {counts}  {version.message}{names}")
    return lines


def pair_lines(pairs: "Sequence[tuple[int, StoredPair]]", sign: str, *, more: int) -> list[str]:
    """Rows of a store that came or went.

    Args:
      pairs: (row, pair) of those to show.
      sign: "+" or "-".
      more: how many there are besides.

    Returns:
      A line each, and one that says how many there are besides.
    """
    lines = [f"{sign} {row:8}  {pair.image}  {pair.captions[0]}" for row, pair in pairs]
    return lines + ([f"{sign} and {more} more"] if more else [])


def first_rows(rows: Sequence[int]) -> tuple[Sequence[int], int]:
    """The rows to show of many.

    Args:
      rows: all of them.

    Returns:
      The first few, and how many there are besides.
    """
    return rows[:_SHOWN], max(0, len(rows) - _SHOWN)


def compacted_facts(
    done: "Compacted", before: "FileSearch", after: "FileSearch", scores: "Scores | None"
) -> dict[str, Any]:
    """What compaction did, for programs.

    Args:
      done: what it says.
      before: the search through all files before.
      after: the same search afterwards.
      scores: the comparison of scores, if there is to be a proof.

    Returns:
      Counts and, of a proof, what it found.
    """
    facts: dict[str, Any] = {"pairs": done.pairs, "rows_dropped": done.rows}
    facts |= {"bytes_before": before.size, "bytes_after": after.size}
    if scores is not None:
        facts |= {"scores_compared": scores.compared, "scores_equal": bool(scores.equal)}
        facts |= {"removed_embeddings_and_texts": before.patterns}
        facts |= {"files_before": before.files, "files_before_holding_some": len(before.found)}
        facts |= {"files_after": after.files, "files_after_holding_some": len(after.found)}
    return facts


def compacted_lines(facts: Mapping[str, Any]) -> list[str]:
    """What compaction did, for people.

    Args:
      facts: from `compacted_facts`.

    Returns:
      The lines.
    """
    names = ("pairs", "rows_dropped", "bytes_before", "bytes_after")
    lines = fact_lines({name: facts[name] for name in names})
    if "scores_compared" not in facts:
        return lines
    same = "the same, bit for bit" if facts["scores_equal"] else "they differ"
    compared = f"{facts['scores_compared']} compared with a model that never held the pairs"
    lines.append(f"scores: {compared}: {same}")
    searched = f"of {facts['removed_embeddings_and_texts']} removed embeddings and texts"
    for when in ("before", "after"):
        holding = f"{facts[f'files_{when}_holding_some']} of {facts[f'files_{when}']}"
        lines.append(f"files {when}: {holding} hold some {searched}")
    return lines
