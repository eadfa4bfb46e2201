"""The commands that judge a model: eval, tune, info."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from asif_jax.cli import rendering, rendering_evaluation
from asif_jax.cli.choices import check_loadable, check_taken, chosen_method
from asif_jax.cli.options import (
    Count,
    MethodOptions,
    Model,
    OutputOptions,
    SourceOptions,
    Version,
    check_counts,
    check_exponents,
    check_method,
    check_prompts,
)
from asif_jax.cli.printing import print_skipped
from asif_jax.cli.starting import begin, cache_folder, say_loading

if TYPE_CHECKING:
    from asif_jax.data import ImageSet
    from asif_jax.model import Model as LoadedModel


@dataclass(frozen=True)
class Eval:
    """Measure a model, zero-shot, on labelled or captioned images. The model stays as it is."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax eval model/ photos/",
        "asif-jax eval model/ tfds:cifar100 --split test --k 250 --p 4",
    )
    resumes: ClassVar[bool] = True

    model: Positional[Model]
    """A model: the directory or URL of a store."""
    data: Positional[Annotated[str, arg(metavar="DATA")]]
    """A folder with one folder a class, or of images with captions; or tfds:NAME, a set of TFDS."""
    labels_file: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: the set's own)")
    ] = None
    """Names for the classes: one a line in their order, or lines of class, tab, name."""
    templates_file: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: a general set)")
    ] = None
    """Sentences to put a class in, in place of {}, one a line."""
    prompts: Annotated[str, arg(metavar="{max,mean}")] = "max"
    """The best prompt of a class counts, or the mean of their embeddings."""
    cache: Annotated[
        Path | None, arg(metavar="DIRECTORY", help_behavior_hint="(default: ~/.cache/asif-jax)")
    ] = None
    """Where to keep embeddings, from which a rerun goes on."""
    version: Version = None
    """A version of the model, by number or name."""
    method: MethodOptions = field(default_factory=MethodOptions)
    source: SourceOptions = field(default_factory=SourceOptions)
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_prompts(self.prompts)

    def run(self) -> None:
        """Prints the figures of the set."""
        begin(f"opening {self.model} …")
        from asif_jax import data, store
        from asif_jax.jobs import predict

        model = self._with_method(store.load(self.model, self.version))
        check_loadable(self.model, model.encoders, "image", "text")
        images = data.read_set(self.data, **self.source.for_reading(), labels_file=self.labels_file)
        templates = self._templates(images)
        say_loading(model.encoders[modality].source for modality in ("image", "text"))
        encoders = {m: predict.load_encoder(model, m) for m in ("image", "text")}
        facts: dict[str, Any] = {"data": images.source, "model": self.model}
        facts |= {"pairs": len(model.pairs), **rendering.method_facts(model.method)}
        options: dict[str, Any] = {"cache": self.cache or cache_folder()}
        if images.classes:
            from asif_jax.jobs.evaluate.classification import classify_set

            facts |= {"prompts": self.prompts, "templates": templates}
            options |= {"templates": templates, "prompts": self.prompts}
            found = classify_set(model, images, encoders, **options)
            lines = rendering_evaluation.classification_lines(found)
            figures = rendering_evaluation.classification_json(found)
        else:
            from asif_jax.jobs.evaluate.retrieval import retrieve_set

            found = retrieve_set(model, images, encoders, **options)
            lines = rendering_evaluation.retrieval_lines(found)
            figures = rendering_evaluation.retrieval_json(found)
        print_skipped(found.skipped)
        facts |= {"images": found.images, "skipped": len(found.skipped), "own_images": found.own}
        self.output.show(
            facts | rendering_evaluation.interval_facts() | figures,
            rendering_evaluation.evaluated_lines(facts, lines),
        )

    def _with_method(self, model: "LoadedModel") -> "LoadedModel":
        """The model, used by the method that is asked for."""
        from asif_jax.model import with_method

        chosen = chosen_method(**vars(self.method), held=model.method)
        return model if chosen is None else with_method(model, chosen)

    def _templates(self, images: "ImageSet") -> tuple[str, ...]:
        from asif_jax.data import prompts

        if not self.templates_file:
            return prompts.GENERAL
        if not images.classes:
            raise ValueError(f"{images.source} holds captions, for which there are no templates")
        return prompts.read_templates(self.templates_file)


@dataclass(frozen=True)
class Tune:
    """Choose a method and its settings by held-out pairs and by images of another kind."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax tune model/ --labelled stamps: --apply",
        "asif-jax tune model/ --method paper --k 50 100 200 --p 2 4 8",
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model: the directory or URL of a store."""
    labelled: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """Images of another kind to name, as for eval: by classes, or by their captions."""
    method: Annotated[
        str | None, arg(metavar="METHOD", help_behavior_hint="(default: several kinds)")
    ] = None
    """The only method to try."""
    k: Annotated[tuple[int, ...], arg(metavar="K...", help_behavior_hint="(default: a rule)")] = ()
    """Values of k to try."""
    p: Annotated[
        tuple[float, ...], arg(metavar="P...", help_behavior_hint="(default: a rule)")
    ] = ()
    """Values of p to try."""
    splits: Count = 3
    """How many times pairs are held out at random."""
    apply: bool = False
    """Write the choice into the model, with probabilities fitted to it."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_counts(splits=self.splits)
        check_method(self.method)
        for value in self.k:
            check_counts(k=value)
        check_exponents(*self.p)

    def run(self) -> None:
        """Prints what each method reaches, and the choice."""
        begin(f"opening {self.model} …")
        from asif_jax import data, store
        from asif_jax.jobs import predict, tuning
        from asif_jax.methods.comparison import choose

        check_taken(self.method or "best", k=self.k, p=self.p)
        tried = tuning.candidates(method=self.method, ks=self.k, ps=self.p)
        opened = store.open_store(self.model)
        found = store.snapshot(opened)
        options: dict[str, Any] = {"splits": self.splits}
        if self.labelled:
            check_loadable(self.model, found.header.encoders, "image", "text")
            options |= {"labelled": data.read_set(self.labelled), "cache": cache_folder()}
            records = {m: found.header.encoders[m] for m in ("image", "text")}
            say_loading(record.source for record in records.values())
            options["encoders"] = {m: predict.load_recorded(r, m) for m, r in records.items()}
        trials = list(tuning.tune(store.load(self.model).anchors, tried, **options))
        best = choose(trials)
        if self.apply:
            message = f"tune: {rendering.in_words(best.method.name, best.method.settings)}"
            tuning.apply(opened, best.method, message=message)
        facts = {"pairs": int(found.live.sum()), "splits": self.splits, "applied": self.apply}
        facts |= {"method_before": found.settings.method}
        facts |= {"settings_before": dict(found.settings.settings)}
        self.output.show(
            facts | rendering_evaluation.tuned_json(trials, best),
            rendering_evaluation.tuned_lines(facts, trials, best),
        )


@dataclass(frozen=True)
class Info:
    """Say what a model holds."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax info model/",
        "asif-jax info model/ --version before-cleaning --json",
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model: the directory or URL of a store."""
    version: Version = None
    """A version of the model, by number or name."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def run(self) -> None:
        """Prints how many pairs there are, and how they are used."""
        from asif_jax import store

        model = store.load(self.model, self.version)
        dimensions = {m: array.shape[-1] for m, array in model.anchors.embeddings.items()}
        method = rendering.method_facts(model.method)
        facts = rendering.info_facts(len(model.pairs), method, model.encoders, dimensions)
        self.output.show(facts, rendering.info_lines(facts))
