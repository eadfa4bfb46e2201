"""Options that several commands share. Settings are checked here, before anything is loaded."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

from asif_jax.cli import printing

DEFAULT_ENCODERS: Mapping[str, str] = {
    "image": "efficientnet-lite2",
    "text": "all-MiniLM-L6-v2",
}

# Those of `asif_jax.methods.METHODS`, which would take JAX to look up.
METHODS = ("best", "two_cosines", "paper", "asif", "cca", "csa", "procrustes", "ridge")

_ONE_METHOD = f"{{{','.join(METHODS)}}}"
_OWN_METHOD = "(default: the model's own; best for a new model)"
_BY_RULE = "(default: by a rule of the number of pairs)"
_BY_SET = "(default: test, else validation)"
_TFDS = "(default: ~/tensorflow_datasets)"

Model = Annotated[str, arg(metavar="MODEL")]
Version = Annotated[str | None, arg(metavar="VERSION", help_behavior_hint="(default: the newest)")]
Texts = Annotated[tuple[str, ...], arg(metavar="TEXT...")]
Count = Annotated[int, arg(metavar="N")]


class UnusableSetting(Exception):
    """A setting that is of no use, whatever the model.

    It is no ValueError: tyro puts those, when a command is made, in a box of its own.
    """


def check_counts(least: int = 1, **settings: int) -> None:
    """Refuses numbers that are too small.

    Args:
      least: the smallest that is of use.
      **settings: option -> its value.

    Raises:
      UnusableSetting: one is smaller.
    """
    for name, value in settings.items():
        if value < least:
            raise UnusableSetting(f"{_option(name)} must be at least {least}: got {value}")


def check_exponents(*values: float) -> None:
    """Refuses exponents that are not finite or not above zero.

    Args:
      *values: of --p.

    Raises:
      UnusableSetting: there is such a value.
    """
    if bad := [value for value in values if not (math.isfinite(value) and value > 0)]:
        raise UnusableSetting(f"--p must be a finite number above 0: got {bad}")


def check_method(name: str | None) -> None:
    """Refuses a method that there is not.

    Args:
      name: of --method, or None.

    Raises:
      UnusableSetting: there is no such method; names the nearest.
    """
    if name is not None and name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(METHODS)}"
        raise UnusableSetting(f"no method {name!r}; {hint}")


def check_some(values: Sequence[Any], otherwise: str) -> None:
    """Refuses an empty list, and one with something empty in it.

    Args:
      values: the list.
      otherwise: what to say of an empty one.

    Raises:
      UnusableSetting: the list is empty, or something in it is.
    """
    if not values or not any(str(value).strip() for value in values):
        raise UnusableSetting(otherwise)
    if not all(str(value).strip() for value in values):
        raise UnusableSetting(f"one of these is empty: {list(map(str, values))}")


def check_prompts(prompts: str) -> None:
    """Refuses what `scoring.class_scores` does not know.

    Args:
      prompts: of --prompts.

    Raises:
      UnusableSetting: neither "max" nor "mean".
    """
    if prompts not in ("max", "mean"):
        raise UnusableSetting(f"--prompts must be max or mean: got {prompts!r}")


def by_modality(option: str, values: Sequence[str]) -> dict[str, str]:
    """Reads what is given as MODALITY=VALUE.

    Args:
      option: its name, for messages.
      values: as given.

    Returns:
      modality -> value.

    Raises:
      UnusableSetting: a value of another form, or a modality that is named twice.

    Example:
      >>> by_modality("encoder", ["speech=my_encoders:whisper"])
      {'speech': 'my_encoders:whisper'}
    """
    found = {}
    for value in values:
        modality, equals, source = value.partition("=")
        if not (equals and source and modality.isidentifier()):
            example = f"image={DEFAULT_ENCODERS['image']}"
            raise UnusableSetting(
                f"{_option(option)} takes MODALITY=SOURCE, such as {example}: got {value!r}"
            )
        if modality in found:
            raise UnusableSetting(f"{_option(option)} names {modality} twice")
        found[modality] = source
    return found


def merged(option: str, values: Sequence[str], short: Mapping[str, str | None]) -> dict[str, str]:
    """What is given as MODALITY=VALUE, and by options of the modalities' own.

    Args:
      option: the name of the first.
      values: as given to it.
      short: modality -> what its own option was given.

    Returns:
      modality -> value.

    Raises:
      UnusableSetting: a modality is named by both, or see `by_modality`.
    """
    found = by_modality(option, values)
    own = {modality: value for modality, value in short.items() if value is not None}
    for modality, value in own.items():
        if modality in found:
            raise UnusableSetting(f"the {modality} encoder is named twice")
        if not value:
            raise UnusableSetting(f"the name of the {modality} encoder is empty")
    return own | found


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class EncoderOptions:
    """By name, by directory, as ORGANIZATION/NAME on the Hugging Face hub, as MODULE:FUNCTION."""

    image_encoder: Annotated[
        str | None,
        arg(metavar="SOURCE", help_behavior_hint=f"(default: {DEFAULT_ENCODERS['image']})"),
    ] = None
    """The encoder of images: short for --encoder image=SOURCE."""
    text_encoder: Annotated[
        str | None,
        arg(metavar="SOURCE", help_behavior_hint=f"(default: {DEFAULT_ENCODERS['text']})"),
    ] = None
    """The encoder of texts: short for --encoder text=SOURCE."""
    encoder: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="MODALITY=SOURCE")] = ()
    """The encoder of any modality, such as speech=my_encoders:whisper."""

    def __post_init__(self) -> None:
        self.given()

    def given(self) -> dict[str, str]:
        """The encoders that were named, modality -> source."""
        short = {"image": self.image_encoder, "text": self.text_encoder}
        return merged("encoder", self.encoder, short)

    def sources(self) -> dict[str, str]:
        """The encoders to use, modality -> source: those named, and the defaults."""
        return {**DEFAULT_ENCODERS, **self.given()}


@dataclass(frozen=True)
class MethodOptions:
    """How pairs become scores."""

    method: Annotated[str | None, arg(metavar=_ONE_METHOD, help_behavior_hint=_OWN_METHOD)] = None
    """The method; `paper` is ASIF as published."""
    k: Annotated[int | None, arg(metavar="K", help_behavior_hint=_BY_RULE)] = None
    """Similarities kept, by the methods that keep some."""
    p: Annotated[float | None, arg(metavar="P", help_behavior_hint=_BY_RULE)] = None
    """The exponent of what is kept."""

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.k is not None:
            check_counts(k=self.k)
        if self.p is not None:
            check_exponents(self.p)


@dataclass(frozen=True)
class SourceOptions:
    """For sets of TFDS, tfds:NAME."""

    split: Annotated[str | None, arg(metavar="SPLIT", help_behavior_hint=_BY_SET)] = None
    """A split, or a slice such as "train[:10%]"."""
    data_dir: Annotated[Path | None, arg(metavar="DIRECTORY", help_behavior_hint=_TFDS)] = None
    """Where TFDS keeps its sets."""
    feature: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """The feature that holds the captions or the label, where several might."""

    def for_reading(self) -> dict[str, Any]:
        """The keywords of `data.read_set`."""
        return {"split": self.split, "data_dir": self.data_dir, "feature": self.feature}


@dataclass(frozen=True)
class PipelineOptions:
    """How the work is done."""

    batch: Count = 32
    """Items of a modality in a batch; accelerators like more."""
    most_skipped: Annotated[float, arg(metavar="SHARE")] = 0.5
    """Stop when a larger share of the images, 0 to 1, cannot be used."""
    distributed: Annotated[bool, arg(help_behavior_hint="")] = False
    """Share the work among the hosts of a cluster; start the same command on all of them."""

    def __post_init__(self) -> None:
        check_counts(batch=self.batch)
        if not 0 <= self.most_skipped <= 1:
            raise UnusableSetting(
                f"--most-skipped must lie between 0 and 1: got {self.most_skipped}"
            )

    def join_cluster(self) -> None:
        """Waits for the other hosts, if there are any."""
        if self.distributed:
            import jax

            jax.distributed.initialize()


@dataclass(frozen=True)
class OutputOptions:
    """What is printed."""

    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print JSON for programs instead of text."""

    def show(self, value: Any, lines: Sequence[str]) -> None:
        """Prints a result.

        Args:
          value: the result for programs, as `printing.print_json` takes it.
          lines: the result for people.
        """
        if self.json:
            printing.print_json(value)
        else:
            printing.print_lines(lines)
