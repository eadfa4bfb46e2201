"""The commands that judge a model: eval, tune, info."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from asif_jax.cli import rendering, rendering_evaluation
from asif_jax.cli.choices import check_loadable, chosen_method, method_of, settings_of
from asif_jax.cli.options import (
    Count,
    MethodOptions,
    Model,
    OutputOptions,
    SourceOptions,
    Version,
    check_counts,
    check_exponents,
    check_prompts,
)
from asif_jax.cli.printing import print_skipped
from asif_jax.cli.starting import begin, cache_folder, say_loading

if TYPE_CHECKING:
    from asif_jax import store
    from asif_jax.data import ImageSet


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
        encoders = [predict.load_encoder(model, modality) for modality in ("image", "text")]
        facts: dict[str, Any] = {"data": images.source, "model": self.model}
        facts |= {"pairs": len(model.pairs), **rendering.method_facts(model.method)}
        options: dict[str, Any] = {"cache": self.cache or cache_folder()}
        if images.classes:
            from asif_jax.jobs.evaluate.classification import classify_set

            facts |= {"prompts": self.prompts, "templates": templates}
            options |= {"templates": templates, "prompts": self.prompts}
            found = classify_set(model, images, *encoders, **options)
            lines = rendering_evaluation.classification_lines(found)
            figures = rendering_evaluation.classification_json(found)
        else:
            from asif_jax.jobs.evaluate.retrieval import retrieve_set

            found = retrieve_set(model, images, *encoders, **options)
            lines = rendering_evaluation.retrieval_lines(found)
            figures = rendering_evaluation.retrieval_json(found)
        print_skipped(found.skipped)
        facts |= {"images": found.images, "skipped": len(found.skipped), "own_images": found.own}
        self.output.show(
            facts | rendering_evaluation.interval_facts() | figures,
            rendering_evaluation.evaluated_lines(facts, lines),
        )

    def _with_method(self, model: "Model") -> "Model":
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
    """Choose k and p by retrieval among pairs of a model that are held out; no labels needed."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax tune model/",
        "asif-jax tune model/ --k 50 100 200 --p 2 4 8 --apply",
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model: the directory or URL of a store."""
    k: Annotated[
        tuple[int, ...],
        arg(metavar="K...", help_behavior_hint="(default: 5 to 1200, as far as the pairs go)"),
    ] = ()
    """Values of k to try."""
    p: Annotated[tuple[float, ...], arg(metavar="P...")] = (
        1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
    )  # fmt: skip
    """Values of p to try."""
    splits: Count = 5
    """How many times pairs are held out at random."""
    apply: bool = False
    """Write the choice into the model."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_counts(splits=self.splits)
        for value in self.k:
            check_counts(k=value)
        check_exponents(*self.p)

    def run(self) -> None:
        """Prints the choice and the recall of all that was tried."""
        begin(f"opening {self.model} …")
        from asif_jax import store
        from asif_jax.methods import tuning

        model = store.load(self.model)
        surface = tuning.tune(
            model.anchors.embeddings, ks=self.k or None, ps=self.p, splits=self.splits
        )
        choice = tuning.best(surface)
        if self.apply:
            settings = store.Settings(choice.k, choice.p)
            message = f"tune: k = {choice.k}, p = {choice.p:g}"
            store.change_settings(store.open_store(self.model), settings, message=message)
        facts: dict[str, Any] = choice._asdict()
        facts |= {"held_out": surface.held_out, "splits": self.splits, "pairs": len(model.pairs)}
        facts |= {"applied": self.apply, "k_before": model.k, "p_before": model.p}
        self.output.show(
            facts | rendering_evaluation.surface_json(surface),
            rendering_evaluation.tuned_lines(facts, surface),
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
