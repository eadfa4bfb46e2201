"""The commands that use a model: classify, search, explain."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from asif_jax.cli import rendering
from asif_jax.cli.choices import check_loadable
from asif_jax.cli.options import (
    Count,
    Model,
    OutputOptions,
    Texts,
    Version,
    check_counts,
    check_prompts,
    check_some,
)
from asif_jax.cli.printing import print_skipped
from asif_jax.cli.starting import begin, say_loading


@dataclass(frozen=True)
class Classify:
    """Name images, zero-shot, by labels of your own."""

    examples: ClassVar[tuple[str, ...]] = (
        'asif-jax classify model/ new.jpg --labels dog cat "red car"',
        "asif-jax classify model/ photos/ --labels-file labels.txt --top 1 --json",
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model: the directory or URL of a store."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...", help_behavior_hint="")]
    """Image files, or folders of them."""
    labels: Texts = ()
    """The labels to choose from."""
    labels_file: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """A file with one label on each line."""
    templates: Annotated[Texts, arg(help_behavior_hint="(default: those of eval)")] = ()
    """Sentences to put a label in, in place of {}."""
    prompts: Annotated[str, arg(metavar="{max,mean}")] = "max"
    """The best prompt of a class counts, or the mean of their embeddings."""
    top: Count = 3
    """How many labels to print for an image."""
    version: Version = None
    """A version of the model, by number or name."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_some(self.images, "no images to classify: name IMAGE")
        if self.labels or self.labels_file is None:
            check_some(self.labels, "no labels to choose from: give --labels or --labels-file")
        if self.templates:
            check_some(self.templates, "no template to put a label in")
        check_prompts(self.prompts)
        check_counts(top=self.top)

    def run(self) -> None:
        """Prints the best labels of each image."""
        begin(f"opening {self.model} …")
        from asif_jax import store
        from asif_jax.data.prompts import GENERAL, sentences
        from asif_jax.jobs import predict

        labels, files = self._all_labels(), image_files(self.images)
        templates = self.templates or GENERAL
        sentences(labels, templates)
        model = store.load(self.model, self.version)
        check_loadable(self.model, model.encoders, "image", "text")
        say_loading(model.encoders[modality].source for modality in ("image", "text"))
        named, skipped = predict.name_images(
            model,
            files,
            labels,
            templates=templates,
            prompts=self.prompts,
            top=self.top,
        )
        print_skipped(skipped)
        self.output.show(named, rendering.named_lines(named))

    def _all_labels(self) -> tuple[str, ...]:
        """The labels that were given, and those of the file."""
        if self.labels_file is None:
            return self.labels
        try:
            lines = self.labels_file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.labels_file} is not UTF-8") from error
        labels = tuple(line.strip() for line in lines if line.strip())
        if not labels:
            raise ValueError(f"{self.labels_file} holds no labels")
        return self.labels + labels


@dataclass(frozen=True)
class Search:
    """Find images from a sentence: the model's own, or others."""

    examples: ClassVar[tuple[str, ...]] = (
        'asif-jax search model/ "a red car"',
        'asif-jax search model/ "a red car" --images holidays/ --top 10',
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model: the directory or URL of a store."""
    text: Positional[Annotated[str, arg(metavar="TEXT")]]
    """What to look for."""
    images: Annotated[
        tuple[Path, ...], arg(metavar="IMAGE...", help_behavior_hint="(default: the model's own)")
    ] = ()
    """Image files or folders to search."""
    top: Count = 5
    """How many images to print."""
    version: Version = None
    """A version of the model, by number or name."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_some([self.text], "nothing to look for: TEXT is empty")
        check_counts(top=self.top)

    def run(self) -> None:
        """Prints the images that match best."""
        begin(f"opening {self.model} …")
        from asif_jax import store
        from asif_jax.jobs import predict

        files = image_files(self.images)
        model = store.load(self.model, self.version)
        modalities = ("text", "image") if files else ("text",)
        check_loadable(self.model, model.encoders, *modalities)
        say_loading(model.encoders[modality].source for modality in modalities)
        found, skipped = predict.search_images(model, self.text, files, top=self.top)
        print_skipped(skipped)
        self.output.show(found, rendering.found_lines(found))


@dataclass(frozen=True)
class Explain:
    """Say which pairs make an image and a sentence match."""

    examples: ClassVar[tuple[str, ...]] = (
        'asif-jax explain model/ new.jpg "a red car"',
        'asif-jax explain model/ new.jpg "a red car" --top 20 --json',
    )
    resumes: ClassVar[bool] = False

    model: Positional[Model]
    """A model: the directory or URL of a store."""
    image: Positional[Annotated[Path, arg(metavar="IMAGE")]]
    """An image file."""
    text: Positional[Annotated[str, arg(metavar="TEXT")]]
    """A sentence."""
    top: Count = 5
    """How many pairs to print."""
    version: Version = None
    """A version of the model, by number or name."""
    output: OutputOptions = field(default_factory=OutputOptions)

    def __post_init__(self) -> None:
        check_some([self.text], "nothing to explain: TEXT is empty")
        check_counts(top=self.top)

    def run(self) -> None:
        """Prints the score and the pairs that it is the sum of."""
        begin(f"opening {self.model} …")
        from asif_jax import store
        from asif_jax.jobs import predict

        model = store.load(self.model, self.version)
        check_loadable(self.model, model.encoders, "image", "text")
        say_loading(model.encoders[modality].source for modality in ("image", "text"))
        score, reasons = predict.explain_match(model, self.image, self.text, top=self.top)
        self.output.show({"score": score, "pairs": reasons}, rendering.reason_lines(score, reasons))


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The image files that paths name.

    Args:
      paths: files, and folders of them.

    Returns:
      The files.

    Raises:
      ValueError: no such path, or a folder without images.
    """
    from asif_jax import data

    return [file for path in paths for file in data.image_files(path)]
