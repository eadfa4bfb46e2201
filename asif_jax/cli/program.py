"""The `asif-jax` command: parse, call, print. Everything it does is a function of the package."""

import os
import sys
from pathlib import Path
from typing import Any

import tyro

from asif_jax.cli import editing as cli_store
from asif_jax.cli.commands import (
    Add,
    Classify,
    Command,
    Compact,
    Demo,
    Diff,
    Embed,
    Eval,
    Explain,
    Export,
    Import,
    Info,
    Log,
    Name,
    Remove,
    Search,
    Tune,
)
from asif_jax.cli.printing import facts_in_lines, plain, print_result, print_skipped

# The imports of the work itself wait until a command runs, so that --help answers at once.


def main() -> None:
    """Runs the command line; bad input ends with one line on stderr and exit code 2."""
    # Only TPU and GPU users need to hear what JAX finds; log levels are read on import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    command = tyro.cli(Command, prog="asif-jax", description="Multimodal models without training.")
    try:
        _RUN[type(command)](command)
    except (ValueError, OSError) as error:
        print(f"asif-jax: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        resumes = isinstance(command, Embed | Add | Eval | Import)
        kept = "a rerun goes on from here" if resumes else "nothing was written"
        print(f"asif-jax: interrupted; {kept}", file=sys.stderr)
        sys.exit(130)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _run_demo(command: Demo) -> None:
    from asif_jax import data, encoders
    from asif_jax.jobs.demo import demo
    from asif_jax.web import report

    source = data.read_folder(command.pairs) if command.pairs else data.read_stamps()
    found = demo.run(
        source,
        encoders.load(command.image_encoder, modality="image"),
        encoders.load(command.text_encoder, modality="text"),
        class_names=None if command.pairs else demo.STAMP_CLASSES,
        queries=command.query or (() if command.pairs else demo.STAMP_QUERIES),
        method=_method(command),
    )
    report.write_report(
        command.report, report.render(report.of_demonstration(found, demo.facts(found)))
    )
    print_result(demo.to_json(found) if command.json else demo.to_text(found), as_json=command.json)
    print(f"report: {command.report}", file=sys.stderr if command.json else sys.stdout)


def _run_classify(command: Classify) -> None:
    from asif_jax import store
    from asif_jax.jobs import predict

    named, skipped = predict.name_images(
        store.load(command.model, command.version),
        _image_files(command.images),
        _labels(command),
        templates=command.templates,
        prompts=command.prompts,
        top=command.top,
    )
    print_skipped(skipped)
    if command.json:
        print_result([plain(item) for item in named], as_json=True)
    for item in [] if command.json else named:
        print(item.image)
        print("\n".join(f"  {guess.score:.3f}  {guess.label}" for guess in item.guesses))


def _run_search(command: Search) -> None:
    from asif_jax import store
    from asif_jax.jobs import predict

    found, skipped = predict.search_images(
        store.load(command.model, command.version),
        command.text,
        _image_files(command.images),
        top=command.top,
    )
    print_skipped(skipped)
    if command.json:
        print_result([plain(item) for item in found], as_json=True)
    for item in [] if command.json else found:
        print(
            f"{item.score:.3f}  {item.image}" + "".join(f"\n       {c}" for c in item.captions[:1])
        )


def _run_explain(command: Explain) -> None:
    from asif_jax import store
    from asif_jax.jobs import predict

    score, reasons = predict.explain_match(
        store.load(command.model, command.version), command.image, command.text, top=command.top
    )
    if command.json:
        print_result({"score": score, "pairs": [plain(reason) for reason in reasons]}, as_json=True)
        return
    print(
        f"score {score:.3f}" + (", because of these pairs:" if reasons else ": no pair in common")
    )
    for reason in reasons:
        print(f"  {reason.contribution:.3f}  {reason.pair.captions[0]}  ({reason.pair.image})")


def _run_eval(command: Eval) -> None:
    from asif_jax import data, store
    from asif_jax.data import prompts
    from asif_jax.jobs import predict
    from asif_jax.jobs.evaluate import classification as zero_shot
    from asif_jax.jobs.evaluate import retrieval
    from asif_jax.jobs.evaluate.intervals import CONFIDENCE, RESAMPLES

    model = store.load(command.model, command.version)
    images = data.read_set(
        command.data,
        split=command.split,
        data_dir=command.data_dir,
        feature=command.feature,
        labels_file=command.labels_file,
    )
    templates = prompts.GENERAL
    if command.templates_file:
        if not images.classes:
            raise ValueError(f"{images.source} holds captions, for which there are no templates")
        templates = prompts.read_templates(command.templates_file)
    encoders = (predict.load_encoder(model, modality) for modality in ("image", "text"))
    options = {"cache": command.cache or _default_cache()}
    facts: dict[str, Any] = {"data": images.source, "model": str(command.model)}
    facts |= {"pairs": len(model.pairs), "k": model.k, "p": model.p}
    if images.classes:
        facts["prompts"] = f"{command.prompts} of {len(templates)} templates"
        options |= {"templates": templates, "prompts": command.prompts}
        found = zero_shot.classify_set(model, images, *encoders, **options)
        text, figures = zero_shot.to_text(found), zero_shot.to_json(found)
    else:
        found = retrieval.retrieve_set(model, images, *encoders, **options)
        text, figures = retrieval.to_text(found), retrieval.to_json(found)
    print_skipped(found.skipped)
    facts |= {"images": found.images, "skipped": len(found.skipped)}
    interval = f"{CONFIDENCE:.0%} of {RESAMPLES} bootstrap resamples of the images"
    if command.json:
        facts |= {"own_images": found.own, "interval": interval}
        facts |= {"templates": list(templates)} if images.classes else {}
        print_result(facts | figures, as_json=True)
        return
    if found.own:
        facts["own images"] = f"{found.own} are among the model's pairs, which flatters it"
    print("\n".join([facts_in_lines(facts), "", text, "", f"[{interval}]"]))


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asif-jax"


def _run_tune(command: Tune) -> None:
    from asif_jax import store
    from asif_jax.methods import tuning

    model = store.load(command.model)
    surface = tuning.tune(
        model.anchors.embeddings, ks=command.k or None, ps=command.p, splits=command.splits
    )
    choice = tuning.best(surface)
    if command.apply:
        settings = store.Settings(choice.k, choice.p)
        message = f"tune: k = {choice.k}, p = {choice.p:g}"
        store.change_settings(store.open_store(command.model), settings, message=message)
    held_out = f"{surface.held_out} of {len(model.pairs)} pairs, {command.splits} times"
    facts: dict[str, Any] = choice._asdict() | {"held_out": held_out, "applied": command.apply}
    facts |= {"k_before": model.k, "p_before": model.p}
    mean = surface.recall.mean(axis=(0, -1))
    if command.json:
        grid = {"ks": surface.ks.tolist(), "ps": surface.ps.tolist(), "surface": mean.tolist()}
        print_result(facts | grid, as_json=True)
        return
    each = "; ".join(f"k = {k}, p = {p:g}" for k, p in choice.each)
    print(f"k = {choice.k}, p = {choice.p:g}, before k = {model.k}, p = {model.p:g}")
    print(f"recall@{surface.at} {choice.recall:.3f}, deviation {choice.deviation:.3f} over splits")
    print(f"held out: {held_out}; by themselves they would choose {each}")
    print("\n" + " " * 8 + "".join(f"p = {p:<5g}" for p in surface.ps))
    for k, row in zip(surface.ks, mean, strict=True):
        print(f"k = {k:<4d}" + "".join(f"{recall:<9.3f}" for recall in row))
    print("\nwritten into the model" if command.apply else "\n--apply writes it into the model")


def _run_info(command: Info) -> None:
    from asif_jax import store

    model = store.load(command.model, command.version)
    facts: dict[str, Any] = {"pairs": len(model.pairs), "k": model.k, "p": model.p}
    for modality, record in model.encoders.items():
        width = model.anchors.embeddings[modality].shape[-1]
        facts[f"{modality} encoder"] = f"{record.source} ({record.identity}), {width} dimensions"
    print_result(facts if command.json else facts_in_lines(facts), as_json=command.json)


def _labels(command: Classify) -> tuple[str, ...]:
    if command.labels_file is None:
        return command.labels
    lines = command.labels_file.read_text(encoding="utf-8").splitlines()
    return command.labels + tuple(line.strip() for line in lines if line.strip())


def _image_files(paths: tuple[Path, ...]) -> list[Path]:
    from asif_jax import data

    return [file for path in paths for file in data.image_files(path)]


_RUN = {
    Demo: _run_demo,
    Embed: cli_store.run_embed,
    Add: cli_store.run_add,
    Remove: cli_store.run_remove,
    Log: cli_store.run_log,
    Diff: cli_store.run_diff,
    Name: cli_store.run_name,
    Compact: cli_store.run_compact,
    Export: cli_store.run_export,
    Import: cli_store.run_import,
    Classify: _run_classify,
    Search: _run_search,
    Explain: _run_explain,
    Eval: _run_eval,
    Tune: _run_tune,
    Info: _run_info,
}
