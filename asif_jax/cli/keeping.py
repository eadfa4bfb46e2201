"""The commands that keep a model in order: remove, log, diff, name, compact, export."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from asif_jax.cli import rendering
from asif_jax.cli.options import (
    Count,
    Model,
    OutputOptions,
    Texts,
    UnusableSetting,
    Version,
    check_counts,
)
from asif_jax.cli.printing import print_skipped

if TYPE_CHECKING:
    from asif_jax.store import Snapshot


@dataclass(frozen=True)
class Remove:
    """Remove pairs from a model; compact makes their bytes go, too."""

    examples: ClassVar[tuple[str, ...]] = (
        'asif-jax remove model/ --captions "a red car" --dry-run',
        'asif-jax remove model/ --images "*/drafts/*"',
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model."""
    images: Annotated[tuple[str, ...], arg(metavar="PATTERN...")] = ()
    """Images to remove, as paths or patterns with * and ?."""
    captions: Texts = ()
    """Remove what has these words in a caption."""
    rows: Annotated[tuple[int, ...], arg(metavar="N...")] = ()
    """Remove by number, as diff prints them."""
    dry_run: bool = False
    """Only say what would be removed."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        if not (self.images or self.captions or self.rows):
            raise UnusableSetting("say what to remove: --images, --captions or --rows")
        if not all((*self.images, *self.captions)):
            # An empty word is in every caption.
            raise UnusableSetting("say what to remove: an empty text is no pattern and no word")

    def run(self) -> None:
        """Removes the pairs that match, and prints them."""
        from asif_jax import store

        opened = store.open_store(self.model)
        found = store.snapshot(opened)
        for row in self.rows:
            if not 0 <= row < len(found.live) or not found.live[row]:
                raise ValueError(f"{self.model}: row {row} holds no pair")
        chosen = store.matching_rows(found, images=self.images, captions=self.captions)
        rows = sorted({*chosen, *self.rows})
        if not rows:
            raise ValueError(f"nothing in {self.model} matches")
        if not self.dry_run:
            store.remove(opened, rows)
        facts: dict[str, Any] = {"removed": 0 if self.dry_run else len(rows)}
        facts |= {"matching": len(rows), "version": store.snapshot(opened).version}
        lines = [*rendering.fact_lines(facts), *_row_lines(found, rows, "-")]
        self.output.show(facts | {"rows": rows}, lines)


@dataclass(frozen=True)
class Log:
    """List the versions of a model, newest first."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax log model/",
        "asif-jax log model/ --limit 100 --json",
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model."""
    limit: Count = 20
    """How many."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_counts(limit=self.limit)

    def run(self) -> None:
        """Prints the versions."""
        from asif_jax import store

        versions = store.log(store.open_store(self.model), limit=self.limit)
        self.output.show(versions, rendering.version_lines(versions))


@dataclass(frozen=True)
class Diff:
    """Say which pairs two versions of a model do not share."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax diff model/ before-cleaning",
        "asif-jax diff model/ 4 7 --json",
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model."""
    former: Positional[Annotated[str, arg(metavar="VERSION")]]
    """A version, by number or name."""
    latter: Annotated[
        Positional[str | None],
        arg(metavar="[VERSION]", help_behavior_hint="(default: the newest)"),
    ] = None
    """Another version."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def run(self) -> None:
        """Prints the pairs that came and those that went."""
        from asif_jax import store

        opened = store.open_store(self.model)
        found = store.diff(opened, self.former, self.latter)
        added, removed = found.added.tolist(), found.removed.tolist()
        # Each version knows of its own rows alone: the latter may be the older one.
        lines = [
            f"{len(added)} pairs added, {len(removed)} removed",
            *_row_lines(store.snapshot(opened, self.former), removed, "-"),
            *_row_lines(store.snapshot(opened, self.latter), added, "+"),
        ]
        self.output.show({"added": added, "removed": removed}, lines)


@dataclass(frozen=True)
class Name:
    """Give a version of a model a name."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax name model/ before-cleaning",
        "asif-jax name model/ first --version 3",
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model."""
    name: Positional[Annotated[str, arg(metavar="NAME")]]
    """The name; it may be that of another version so far."""
    version: Version = None
    """The version, by number or name."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def run(self) -> None:
        """Names the version, and prints which it is."""
        from asif_jax import store
        from asif_jax.store.snapshots import version_number

        opened = store.open_store(self.model)
        number = version_number(opened, self.version)
        store.name_version(opened, number, self.name)
        facts = {"model": self.model, "version": number, "name": self.name}
        self.output.show(facts, [f"version {number} of {self.model} is {self.name}"])


@dataclass(frozen=True)
class Compact:
    """Rewrite a model without what was removed; older versions go."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax compact model/",
        "asif-jax compact model/ --prove --json",
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model."""
    prove: bool = False
    """Compare scores bit for bit, and search all files for what was removed."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def run(self) -> None:
        """Rewrites a store, and proves that what was removed is gone."""
        from asif_jax import store
        from asif_jax.store import proof

        opened = store.open_store(self.model)
        found = store.snapshot(opened)
        patterns = proof.removed_bytes(found) if self.prove else []
        scores = proof.compare_scores(found) if self.prove else None
        before = proof.search_bytes(opened, patterns)
        done = store.compact(opened)
        after = proof.search_bytes(done.store, patterns)
        facts = rendering.compacted_facts(done, before, after, scores)
        if scores is not None and (not scores.equal or after.found):
            raise ValueError(f"the removal is not proved: {facts}")
        self.output.show(facts, rendering.compacted_lines(facts))


@dataclass(frozen=True)
class Export:
    """Write the pairs of a model in a form that other programs read."""

    examples: ClassVar[tuple[str, ...]] = (
        "asif-jax export model/ -o embeddings/",
        "asif-jax export model/ -o embeddings/ --form safetensors --version before-cleaning",
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model."""
    where: Annotated[Path, arg(name="output", aliases=["-o"], metavar="DIRECTORY")]
    """A new directory."""
    form: Annotated[
        Literal["npy", "safetensors", "folder"], arg(metavar="{npy,safetensors,folder}")
    ] = "npy"
    """As clip-retrieval has them (.npy and Parquet); bit for bit; or the images with metadata."""
    version: Version = None
    """A version, by number or name."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def run(self) -> None:
        """Writes the pairs of a version in another form."""
        from asif_jax import store
        from asif_jax.jobs import exporting

        found = store.snapshot(store.open_store(self.model), self.version)
        skipped = exporting.export(found, self.where, form=self.form)
        print_skipped(skipped)
        pairs = int(found.live.sum()) - len(skipped)
        facts: dict[str, Any] = {"model": self.model, "version": found.version}
        facts |= {"pairs": pairs, "skipped": len(skipped)}
        facts |= {"form": self.form, "output": self.where}
        lines = [f"{pairs} pairs of version {found.version}: {self.where}"]
        self.output.show(facts, lines)


def _row_lines(found: "Snapshot", rows: Sequence[int], sign: str) -> list[str]:
    """The first of some rows of a version, and how many there are besides."""
    from asif_jax.store import StoredPairs

    pairs = StoredPairs(found)
    shown, more = rendering.first_rows(rows)
    return rendering.pair_lines([(row, pairs.at(row)) for row in shown], sign, more=more)
