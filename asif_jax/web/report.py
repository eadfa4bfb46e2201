"""What a person looks at: one self-contained page with pictures, predictions and reasons."""

import base64
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from PIL import Image

from asif_jax.data import open_image
from asif_jax.jobs.demo.demo import (
    Demonstration,
    Evidence,
    Prediction,
    Searched,
)

_THUMBNAIL = 200


class RecallRow(NamedTuple):
    """One direction of retrieval: its name, and (k, recall, chance) for each k."""

    direction: str
    cells: Sequence[tuple[int, float, float]]


class Confusion(NamedTuple):
    """Zero-shot classes: counts[truth][prediction] over the labels."""

    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


class Report(NamedTuple):
    """The content of the page; empty sections are left out.

    Attributes:
      title: headline.
      facts: (name, value), in the order shown.
      recall: retrieval in each direction.
      confusion: zero-shot classification, if there are classes.
      examples: predictions explained.
      searches: sentences and what they find.
      skipped: (file, reason) of what was left out.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    recall: Sequence[RecallRow] = ()
    confusion: Confusion | None = None
    examples: Sequence[Prediction] = ()
    searches: Sequence[Searched] = ()
    skipped: Sequence[tuple[str, str]] = ()


def of_demonstration(demo: Demonstration, facts: Mapping[str, str]) -> Report:
    """The page of a demonstration.

    Args:
      demo: what was found.
      facts: its figures in words, name -> value.

    Returns:
      The content for `render`.
    """
    directions = {"image to text": demo.retrieval.image_to_text}
    directions["text to image"] = demo.retrieval.text_to_image
    return Report(
        f"A multimodal model from {demo.pairs} pairs, without training",
        tuple(facts.items()),
        [
            RecallRow(name, [(k, r.recall[k].value, r.chance[k]) for k in r.recall])
            for name, r in directions.items()
        ],
        demo.classes and Confusion(demo.classes.classes, demo.classes.confusion.tolist()),
        demo.examples,
        demo.searches,
        [(str(item.path), item.reason) for item in demo.skipped],
    )


def render(report: Report) -> str:
    """Makes the page.

    Args:
      report: its content. The images are read here and go into the page as thumbnails.

    Returns:
      HTML that needs no other file.

    Raises:
      ValueError: an image cannot be read any more.
    """
    sections = [_facts(report.facts)]
    if report.examples:
        parts = map(_example, report.examples)
        sections.append(_section("Predictions and their reasons", _EXAMPLES, parts))
    if report.searches:
        sections.append(_section("Found by a sentence", _SEARCHES, map(_search, report.searches)))
    if report.recall:
        table = _recall_table(report.recall)
        sections.append(_section("How often it is right", _RECALL, [table]))
    if report.confusion:
        table = _confusion_table(report.confusion)
        sections.append(_section("Named without training", _CLASSES, [table]))
    if report.skipped:
        sections.append(_section("Left out", "", [_skipped(report.skipped)]))
    return _PAGE.substitute(title=html.escape(report.title), body="\n".join(sections))


def write_report(path: Path, page: str) -> None:
    """Writes the page in one step: a reader sees the former file or the whole new one.

    Args:
      path: the file.
      page: from `render`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _section(heading: str, introduction: str, parts: Iterable[str]) -> str:
    return f"<section><h2>{heading}</h2><p>{introduction}</p>{''.join(parts)}</section>"


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts
    )
    return f"<dl>{items}</dl>"


def _picture(path: Path, caption: str) -> str:
    image = open_image(path)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{data}">'


def _example(example: Prediction) -> str:
    guesses = "".join(
        f'<li class="{"right" if guess.correct else "wrong"}"><span>{html.escape(guess.caption)}'
        f"</span> <b>{guess.score:.2f}</b></li>"
        for guess in example.guesses
    )
    total = example.guesses[0].score if example.guesses else 0.0
    evidence = "".join(_evidence(item, total) for item in example.evidence)
    return (
        f'<article class="example"><figure>{_picture(example.image, example.caption)}'
        f"<figcaption>{html.escape(example.caption)}</figcaption></figure>"
        f"<div><h3>The model says</h3><ol>{guesses}</ol></div>"
        f'<div class="because"><h3>Because of these pairs</h3><div class="row">{evidence}</div>'
        "</div></article>"
    )


def _evidence(item: Evidence, total: float) -> str:
    share = 100 * item.contribution / total if total else 0.0
    return (
        f"<figure>{_picture(item.image, item.caption)}"
        f'<div class="bar" title="{item.contribution:.3f} of {total:.3f}">'
        f'<i style="width:{min(share, 100):.0f}%"></i></div>'
        f"<figcaption><b>{share:.0f}%</b> {html.escape(item.caption)}</figcaption></figure>"
    )


def _search(search: Searched) -> str:
    found = "".join(
        f"<figure>{_picture(item.image, item.caption)}<figcaption><b>{item.score:.2f}</b> "
        f"{html.escape(item.caption)}</figcaption></figure>"
        for item in search.found
    )
    return (
        f'<article><h3>“{html.escape(search.query)}”</h3><div class="row">{found}</div></article>'
    )


def _recall_table(rows: Sequence[RecallRow]) -> str:
    heads = "".join(f"<th>first {k}</th>" for k, _, _ in rows[0].cells)
    body = "".join(
        f"<tr><th>{html.escape(row.direction)}</th>"
        + "".join(
            f"<td>{recall:.1%}<small>chance {chance:.1%}</small></td>"
            for _, recall, chance in row.cells
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr><td></td>{heads}</tr>{body}</table></div>'


def _confusion_table(confusion: Confusion) -> str:
    heads = "".join(f"<th>named {html.escape(label)}</th>" for label in confusion.labels)
    body = "".join(
        f"<tr><th>{html.escape(label)}</th>"
        + "".join(
            f'<td class="{"right" if row == column else ""}">{count}</td>'
            for column, count in enumerate(counts)
        )
        + "</tr>"
        for row, (label, counts) in enumerate(zip(confusion.labels, confusion.counts, strict=True))
    )
    total = sum(map(sum, confusion.counts))
    right = sum(confusion.counts[i][i] for i in range(len(confusion.labels)))
    return (
        f"<p><b>{right / total:.1%}</b> of {total} images are right; a guess is right "
        f"{1 / len(confusion.labels):.1%} of the time.</p>"
        f'<div class="scroll"><table><tr><td></td>{heads}</tr>{body}</table></div>'
    )


def _skipped(skipped: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f"<li>{html.escape(path)}: {html.escape(reason)}</li>" for path, reason in skipped
    )
    return f"<details><summary>{len(skipped)} skipped</summary><ul>{items}</ul></details>"


_EXAMPLES = (
    "Images the model has not seen, taken at even distances, not chosen, with the captions it "
    "finds most fitting among those of all unseen images. A score is a sum over the pairs that the "
    "image and the caption both resemble; the pairs shown made most of the first caption's score."
)
_SEARCHES = (
    "The unseen images that fit a sentence best. Their captions, shown below them, took no part."
)
_RECALL = (
    "How often the right partner is among the first 1, 5 or 10, for pairs the model has not seen. "
    "Chance is what a random order would reach."
)
_CLASSES = "Every image is named by a model that has not seen it, from the names of the classes."

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --line: #8883; --soft: #8881; --accent: #2f7d4f; --bad: #a33; }
@media (prefers-color-scheme: dark) { :root { --accent: #6cc48f; --bad: #e88; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 2rem 1rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { margin: 3rem 0 .25rem; font-size: 1.35rem; }
h3 { margin: 0 0 .5rem; font-size: .8rem; text-transform: uppercase; letter-spacing: .06em;
  opacity: .7; }
article h3:first-child { overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .25rem 0 1rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0; }
dl div { background: var(--soft); border-radius: .5rem; padding: .6rem .8rem; }
dt { font-size: .8rem; opacity: .7; } dd { margin: 0; font-weight: 600; }
article { border: 1px solid var(--line); border-radius: .75rem; padding: 1rem; margin: 1rem 0; }
.example { display: grid; grid-template-columns: 11rem 15rem 1fr; gap: 1.25rem; }
figure { margin: 0; min-width: 0; }
img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff;
  border-radius: .4rem; border: 1px solid var(--line); }
figcaption { font-size: .85rem; line-height: 1.3; margin-top: .3rem; overflow-wrap: anywhere; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.2rem, 1fr)); gap: .75rem; }
article > .row { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
ol { margin: 0; padding-left: 1.2rem; }
li span { overflow-wrap: anywhere; }
li.right { color: var(--accent); font-weight: 600; } li.right span::after { content: " ✓"; }
.bar { height: .35rem; background: var(--soft); border-radius: .2rem; margin-top: .35rem; }
.bar i { display: block; height: 100%; background: var(--accent); border-radius: .2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .4rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; } th { font-weight: 600; }
td small { display: block; opacity: .65; } td.right { color: var(--accent); font-weight: 700; }
@media (max-width: 52rem) { .example { grid-template-columns: 1fr; }
  .example > figure { max-width: 13rem; } }
</style></head><body>
<h1>$title</h1>
<p>A model that matches images with sentences, made without training. It knows a set of images with
captions, the <em>pairs</em>. To judge a new image it asks which of the pairs' images it resembles;
to judge a sentence, which of their captions. An image and a sentence fit when they point to the
same pairs, so every answer can be traced to the pairs behind it.</p>
$body
<footer><p><small>ASIF: Norelli et al., “Coupled Data Turns Unimodal Models to Multimodal Without
Training”, NeurIPS 2023. Made with asif_jax.</small></p></footer>
</body></html>
""")
