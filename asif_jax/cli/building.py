"""The commands that build a model from images with captions: demo, embed, add."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from asif_jax.cli import rendering, rendering_demo
from asif_jax.cli.choices import check_loadable, chosen_method
from asif_jax.cli.options import (
    Count,
    EncoderOptions,
    MethodOptions,
    Model,
    OutputOptions,
    PipelineOptions,
    SourceOptions,
    Texts,
    UnusableSetting,
    check_counts,
    check_some,
)
from asif_jax.cli.printing import print_skipped
from asif_jax.cli.recording import checked_method, load_all, open_for, records_of
from asif_jax.cli.starting import begin, say_loading

if TYPE_CHECKING:
    from asif_jax.data import ImageSet
    from asif_jax.encoders import Encoder
    from asif_jax.jobs.embedding.into_store import Embedded
    from asif_jax.store import Store

Data = Annotated[tuple[str, ...], arg(metavar="DATA...", help_behavior_hint="")]


@dataclass(frozen=True)
class Demo:
    """Build a model from the Tux Paint stamps and try it on stamps it has not seen."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax demo",
        'asif-jax demo --pairs photos/ --query "a red car" --report photos.html',
    )
    resumes: ClassVar[bool] = False

    pairs: Annotated[
        Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: the stamps)")
    ] = None
    """A folder of images with captions to use in place of the stamps."""
    report: Annotated[Path, arg(metavar="FILE")] = Path("asif-report.html")
    """The page to write."""
    query: Texts = ()
    """Sentences to search held-out images with."""
    folds: Count = 5
    """Parts to cut the pairs into; each is tried on a model of the others."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    method: MethodOptions = field(default_factory=MethodOptions)
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_counts(2, folds=self.folds)
        if not self.report.absolute().parent.is_dir():
            raise UnusableSetting(f"no such folder: {self.report.absolute().parent}")
        if beyond := sorted(set(self.encoder.given()) - {"image", "text"}):
            raise UnusableSetting(f"demo has no pairs with {beyond[0]}")

    def run(self) -> None:
        """Prints what was found, and writes the page."""
        sources = self.encoder.sources()
        begin(f"loading {' and '.join(sources.values())} …")
        from asif_jax import data
        from asif_jax.jobs.demo import demo
        from asif_jax.web import report

        own = self.pairs
        found = demo.run(
            data.read_folder(own) if own else data.read_stamps(),
            load_all(sources),
            class_names=None if own else demo.STAMP_CLASSES,
            queries=self.query or (() if own else demo.STAMP_QUERIES),
            method=chosen_method(**vars(self.method)),
            folds=self.folds,
        )
        page = report.of_demonstration(found, rendering_demo.facts(found))
        report.write_report(self.report, report.render(page))
        self.output.show(
            rendering_demo.to_json(found) | {"report": self.report},
            [*rendering_demo.lines(found), f"report: {self.report}"],
        )


@dataclass(frozen=True)
class Embed:
    """Build a model: embed images with captions into a store. A rerun goes on where it stopped."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax embed photos/ -o model/",
        "asif-jax embed shards/ tfds:coco_captions -o model/ --image-encoder facebook/dino-vits16",
    )
    resumes: ClassVar[bool] = True

    data: Positional[Data]
    """Folders of images with captions, tar files, Parquet files, folders of those, tfds:NAME."""
    where: Annotated[str, arg(name="output", aliases=["-o"], metavar="MODEL")]
    """The store: a directory or URL (gs://, s3://); what is in one already stays."""
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        arg(metavar="{float32,bfloat16}", help_behavior_hint="(default: float32)"),
    ] = None
    """Of the embeddings; bfloat16 takes half the room."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    method: MethodOptions = field(default_factory=MethodOptions)
    source: SourceOptions = field(default_factory=SourceOptions)
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_some(self.data, "nothing to embed: name DATA")

    def run(self) -> None:
        """Embeds sets into a store, which it makes if none is there."""
        sources = self.encoder.sources()
        begin(f"loading {' and '.join(sources.values())} …")
        from asif_jax import store

        self.pipeline.join_cluster()
        sets = read_sets(self.data, self.source, sources)
        new = not store.is_store(self.where)
        if new:
            store.check_free(self.where)
        sizes = sum(images.size for images in sets)
        method = checked_method(self.where, self.method, self.dtype, more=sizes)
        loaded = load_all(sources)
        dimensions = {modality: encoder.dimension for modality, encoder in loaded.items()}
        records = records_of(sources, loaded)
        options: dict[str, Any] = {"dtype": self.dtype, "method": method}
        # An image may have several captions, and an example one item of every other modality.
        opened = open_for(self.where, records, dimensions, several=("text",), **options)
        embed_and_show(opened, sets, loaded, self.pipeline, self.output, new=new)


@dataclass(frozen=True)
class Add:
    """Embed more images with captions into a model; those in it already are left out."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax add model/ more-photos/",
        "asif-jax add model/ shards/00007.tar --batch 256",
    )
    resumes: ClassVar[bool] = True

    model: Positional[Model]
    """A model: the directory or URL of a store."""
    data: Positional[Data]
    """As for embed."""
    source: SourceOptions = field(default_factory=SourceOptions)
    pipeline: PipelineOptions = field(default_factory=PipelineOptions)
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_some(self.data, "nothing to add: name DATA")

    def run(self) -> None:
        """Embeds sets into a store with the encoders of that store."""
        begin(f"opening {self.model} …")
        from asif_jax import store
        from asif_jax.jobs import predict

        self.pipeline.join_cluster()
        opened = store.open_store(self.model)
        records = opened.header.encoders
        check_loadable(self.model, records, *records)
        sets = read_sets(self.data, self.source, records)
        say_loading(record.source for record in records.values())
        loaded = {m: predict.load_recorded(record, m) for m, record in records.items()}
        embed_and_show(opened, sets, loaded, self.pipeline, self.output)


def embed_and_show(
    opened: "Store",
    sets: "Sequence[ImageSet]",
    loaded: "Mapping[str, Encoder]",
    pipeline: PipelineOptions,
    output: OutputOptions,
    *,
    new: bool = False,
) -> None:
    """Embeds sets into a store and prints what came of it.

    Args:
      opened: the store.
      sets: what to embed.
      loaded: modality -> encoder.
      pipeline: how.
      output: how to print.
      new: whether to delete a store that stays empty.

    Raises:
      ValueError: see `into_store.embed_into`.
    """
    from asif_jax import store
    from asif_jax.jobs import tuning

    try:
        done = [_embed(opened, images, loaded, pipeline) for images in sets]
    except ValueError:
        if new and leads() and not store.snapshot(opened).live.any():
            # No half-made model where none was before.
            store.delete(opened)
        raise
    if not leads():
        return
    for result in done:
        print_skipped(result.skipped)
    tuning.calibrate_store(opened)
    found = store.snapshot(opened)
    facts: dict[str, Any] = {"model": opened.url, "version": found.version}
    facts |= {"pairs": int(found.live.sum()), **rendering.embedded_facts(done)}
    output.show(facts, rendering.embedded_lines(facts))


def _embed(
    opened: "Store", images: "ImageSet", loaded: "Mapping[str, Encoder]", pipeline: PipelineOptions
) -> "Embedded":
    from asif_jax.jobs.embedding.into_store import embed_into

    return embed_into(
        opened,
        images,
        loaded,
        batch=pipeline.batch,
        most_skipped=pipeline.most_skipped,
    )


def read_sets(
    sources: Sequence[str], options: SourceOptions, modalities: Iterable[str]
) -> "list[ImageSet]":
    """Finds sets of images with captions.

    Args:
      sources: what the user named.
      options: for sets of TFDS.
      modalities: what pairs are made of; beside images and texts, the sets must hold the others.

    Returns:
      A set for each.

    Raises:
      ValueError: a source that is none; of a folder it says which captions are missing, not which
        classes.
    """
    from asif_jax import data

    further = tuple(modality for modality in modalities if modality not in ("image", "text"))
    chosen = {**options.for_reading(), "modalities": further}
    return [data.read_set(source, need="captions", **chosen) for source in sources]


def leads() -> bool:
    """Whether this process is the one of its cluster that writes what all share."""
    import jax

    return jax.process_index() == 0
