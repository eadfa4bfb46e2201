"""The command that builds a model from embeddings that are there already: import."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, UseAppendAction, arg

from asif_jax.cli import rendering
from asif_jax.cli.choices import record_by_name
from asif_jax.cli.options import (
    MethodOptions,
    OutputOptions,
    UnusableSetting,
    merged,
)
from asif_jax.cli.printing import print_skipped
from asif_jax.cli.recording import checked_method, load_all, open_for, records_of
from asif_jax.cli.starting import begin, say_loading

if TYPE_CHECKING:
    from asif_jax.jobs.importing import EmbeddedSet
    from asif_jax.store import EncoderRecord


@dataclass(frozen=True)
class MadeByOptions:
    """The encoders that the embeddings were made with; an export knows by itself.

    Encoders are named as for embed. One that cannot be loaded here is recorded by its name alone;
    queries of its modality are then arrays.
    """

    image_encoder: Annotated[str | None, arg(metavar="SOURCE", help_behavior_hint="")] = None
    """The encoder of images: short for --encoder image=SOURCE."""
    text_encoder: Annotated[str | None, arg(metavar="SOURCE", help_behavior_hint="")] = None
    """The encoder of texts: short for --encoder text=SOURCE."""
    encoder: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="MODALITY=SOURCE")] = ()
    """The encoder of any modality."""
    image_encoder_name: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """The name of an encoder of images that cannot be loaded here, such as open_clip:ViT-B-32."""
    text_encoder_name: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """The name of such an encoder of texts."""
    encoder_name: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="MODALITY=NAME")] = ()
    """The name of such an encoder of any modality."""

    def __post_init__(self) -> None:
        if twice := sorted(set(self.sources()) & set(self.names())):
            raise UnusableSetting(f"the {twice[0]} encoder is named twice")

    def sources(self) -> dict[str, str]:
        """The encoders to load, modality -> source."""
        short = {"image": self.image_encoder, "text": self.text_encoder}
        return merged("encoder", self.encoder, short)

    def names(self) -> dict[str, str]:
        """The encoders that are known by name alone, modality -> name."""
        short = {"image": self.image_encoder_name, "text": self.text_encoder_name}
        return merged("encoder_name", self.encoder_name, short)


@dataclass(frozen=True)
class Import:
    """Build a model from embeddings that are there already. A rerun goes on where it stopped."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax import export/ -o model/",
        "asif-jax import laion/ -o model/ --image-encoder-name open_clip:ViT-B-32 "
        "--text-encoder all-MiniLM-L6-v2",
    )
    resumes: ClassVar[bool] = True

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """With img_emb/, text_emb/ and metadata/, as clip-retrieval has them, or an export."""
    where: Annotated[str, arg(name="output", aliases=["-o"], metavar="MODEL")]
    """The store: a directory or URL; what is in one already stays."""
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        arg(metavar="{float32,bfloat16}", help_behavior_hint="(default: float32)"),
    ] = None
    """Of the embeddings; bfloat16 takes half the room."""
    encoder: MadeByOptions = field(default_factory=MadeByOptions)
    method: MethodOptions = field(default_factory=MethodOptions)
    output: OutputOptions = field(default_factory=OutputOptions)

    def run(self) -> None:
        """Writes embeddings into a store, which it makes if none is there."""
        begin(f"reading {self.folder} …")
        from asif_jax import store
        from asif_jax.jobs import importing

        found = importing.read_embedded(self.folder)
        if not store.is_store(self.where):
            store.check_free(self.where)
        method = checked_method(self.where, self.method, self.dtype, more=found.size)
        records = self._records(found)
        options: dict[str, Any] = {"dtype": self.dtype, "method": method}
        opened = open_for(self.where, records, found.dimensions, several=found.several, **options)
        added, skipped = importing.import_into(opened, found)
        print_skipped(skipped)
        newest = store.snapshot(opened)
        facts: dict[str, Any] = {"model": opened.url, "version": newest.version}
        facts |= {"pairs": int(newest.live.sum()), "added": added, "skipped": len(skipped)}
        self.output.show(facts, rendering.fact_lines(facts))

    def _records(self, found: "EmbeddedSet") -> "Mapping[str, EncoderRecord]":
        """The encoders of what is imported: named by the user, or by the embeddings themselves."""
        sources, names = self.encoder.sources(), self.encoder.names()
        if beyond := sorted({*sources, *names} - set(found.dimensions)):
            raise ValueError(f"{self.folder} holds no {beyond[0]}: {', '.join(found.dimensions)}")
        for modality in found.dimensions:
            if modality not in {*found.encoders, *sources, *names}:
                raise ValueError(
                    f"{self.folder} does not say by what it was embedded: give "
                    f"{_option(modality, 'encoder')} or {_option(modality, 'encoder-name')}"
                )
        if sources:
            say_loading(sources.values())
        loaded = load_all(sources)
        for modality, encoder in loaded.items():
            held = found.dimensions[modality]
            if encoder.dimension != held:
                raise ValueError(
                    f"{self.folder} holds {modality} embeddings of {held} dimensions: "
                    f"{sources[modality]} gives {encoder.dimension}"
                )
        by_name = {modality: record_by_name(name) for modality, name in names.items()}
        return {**found.encoders, **records_of(sources, loaded), **by_name}


def _option(modality: str, option: str) -> str:
    """The option that names an encoder of a modality."""
    short = modality in ("image", "text")
    return f"--{modality}-{option}" if short else f"--{option} {modality}=..."
