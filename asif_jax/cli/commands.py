"""What can be asked of the `asif-jax` command: its subcommands, their arguments and help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Demo:
    """Build a model from the Tux Paint stamps and try it on stamps it has not seen."""

    pairs: Path | None = None
    """A folder of images with captions to use in place of the stamps."""
    report: Path = Path("asif-report.html")
    """The page to write."""
    query: Annotated[tuple[str, ...], arg(metavar="TEXT...")] = ()
    """Sentences to search held-out images with."""
    image_encoder: str = "efficientnet-lite2"
    """Image encoder, by name or path."""
    text_encoder: str = "all-MiniLM-L6-v2"
    """Text encoder, by name or path."""
    k: int | None = None
    """Similarities kept; by default a rule of the number of pairs."""
    p: float | None = None
    """Exponent; by default a rule of the number of pairs."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Embed:
    """Build a model: embed images with captions into a store. A rerun goes on where it stopped."""

    data: Positional[tuple[str, ...]]
    """Folders of images with captions, tar files, Parquet files, folders of those, tfds:NAME."""
    output: Annotated[str, arg(aliases=["-o"])]
    """The store: a directory or URL (gs://, s3://); what is in one already stays."""
    image_encoder: str = "efficientnet-lite2"
    """Image encoder, by name or path."""
    text_encoder: str = "all-MiniLM-L6-v2"
    """Text encoder, by name or path."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the embeddings, float32 by default; bfloat16 takes half the room."""
    k: int | None = None
    """Similarities kept; by default a rule of the number of pairs."""
    p: float | None = None
    """Exponent; by default a rule of the number of pairs."""
    split: str | None = None
    """Split of a TFDS set, or a slice such as "train[:10%]"."""
    data_dir: Path | None = None
    """Where TFDS keeps its sets."""
    feature: str | None = None
    """The feature of a TFDS set that holds the captions, where several might."""
    batch: int = 32
    """Images, and captions, to a batch; accelerators like more."""
    most_skipped: float = 0.5
    """Stop when a larger share of the images cannot be used."""
    distributed: bool = False
    """Share the work among the hosts of a cluster; start the same command on all."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Add:
    """Embed more images with captions into a model; those in it already are left out."""

    model: Positional[str]
    """A model: the directory or URL of a store."""
    data: Positional[tuple[str, ...]]
    """As for embed."""
    split: str | None = None
    """Split of a TFDS set, or a slice such as "train[:10%]"."""
    data_dir: Path | None = None
    """Where TFDS keeps its sets."""
    feature: str | None = None
    """The feature of a TFDS set that holds the captions, where several might."""
    batch: int = 32
    """Images, and captions, to a batch; accelerators like more."""
    most_skipped: float = 0.5
    """Stop when a larger share of the images cannot be used."""
    distributed: bool = False
    """Share the work among the hosts of a cluster; start the same command on all."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Remove:
    """Remove pairs from a model; compact makes their bytes go, too."""

    model: Positional[str]
    """A model."""
    images: Annotated[tuple[str, ...], arg(metavar="PATTERN...")] = ()
    """Images to remove, as paths or patterns with * and ?."""
    captions: Annotated[tuple[str, ...], arg(metavar="TEXT...")] = ()
    """Remove what has these words in a caption."""
    rows: tuple[int, ...] = ()
    """Remove by number, as diff prints them."""
    dry_run: bool = False
    """Only say what would be removed."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Log:
    """List the versions of a model, newest first."""

    model: Positional[str]
    """A model."""
    limit: int = 20
    """How many."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Diff:
    """Say which pairs two versions of a model do not share."""

    model: Positional[str]
    """A model."""
    former: Positional[str]
    """A version, by number or name."""
    latter: Positional[str | None] = None
    """Another; by default the newest."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Name:
    """Give a version of a model a name."""

    model: Positional[str]
    """A model."""
    name: Positional[str]
    """The name; it may be that of another version so far."""
    version: str | None = None
    """The version, by number or name; by default the newest."""


@dataclass(frozen=True)
class Compact:
    """Rewrite a model without what was removed; older versions go."""

    model: Positional[str]
    """A model."""
    prove: bool = False
    """Compare scores bit for bit, and search all files for what was removed."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Classify:
    """Name images, zero-shot, by labels of your own."""

    model: Positional[str]
    """A model: the directory or URL of a store."""
    images: Positional[tuple[Path, ...]]
    """Image files, or folders of them."""
    labels: tuple[str, ...] = ()
    """The labels to choose from."""
    labels_file: Path | None = None
    """A file with one label a line."""
    templates: tuple[str, ...] = ("{}", "a {}.", "a photo of a {}.")
    """Sentences to put a label in, in place of {}."""
    prompts: Annotated[str, arg(constructor=str)] = "max"
    """The best prompt of a class counts ("max"), or their mean embedding ("mean")."""
    top: int = 3
    """How many labels to print for an image."""
    version: str | None = None
    """A version of the model, by number or name; by default the newest."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Search:
    """Find images from a sentence: the model's own, or others."""

    model: Positional[str]
    """A model: the directory or URL of a store."""
    text: Positional[str]
    """What to look for."""
    images: tuple[Path, ...] = ()
    """Image files or folders to search; by default the model's own images."""
    top: int = 5
    """How many images to print."""
    version: str | None = None
    """A version of the model, by number or name; by default the newest."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Explain:
    """Say which pairs make an image and a sentence match."""

    model: Positional[str]
    """A model: the directory or URL of a store."""
    image: Positional[Path]
    """An image file."""
    text: Positional[str]
    """A sentence."""
    top: int = 5
    """How many pairs to print."""
    version: str | None = None
    """A version of the model, by number or name; by default the newest."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Eval:
    """Measure a model, zero-shot, on labelled or captioned images."""

    model: Positional[str]
    """A model: the directory or URL of a store."""
    data: Positional[str]
    """A folder with one folder a class, or of images with captions; or tfds:NAME, a set of TFDS."""
    split: str | None = None
    """Split of a TFDS set, or a slice such as "test[:1000]"; by default test, else validation."""
    data_dir: Path | None = None
    """Where TFDS keeps its sets."""
    feature: str | None = None
    """The feature of a TFDS set that holds the label or the captions, where several might."""
    labels_file: Path | None = None
    """Names for the classes: one a line in their order, or lines of class, tab, name."""
    templates_file: Path | None = None
    """Sentences to put a class in, in place of {}, one a line; by default a general set."""
    prompts: Annotated[str, arg(constructor=str)] = "max"
    """The best prompt of a class counts ("max"), or their mean embedding ("mean")."""
    cache: Path | None = None
    """Where to keep embeddings, from which a rerun goes on; by default ~/.cache/asif-jax."""
    version: str | None = None
    """A version of the model, by number or name; by default the newest."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Tune:
    """Choose k and p by retrieval among pairs of a model that are held out; no labels needed."""

    model: Positional[str]
    """A model: the directory or URL of a store."""
    k: tuple[int, ...] = ()
    """Values of k to try; by default 5 to 1,200, as far as the pairs go."""
    p: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
    """Values of p to try."""
    splits: int = 5
    """How many times pairs are held out at random."""
    apply: bool = False
    """Write the choice into the model."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Info:
    """Say what a model holds."""

    model: Positional[str]
    """A model: the directory or URL of a store."""
    version: str | None = None
    """A version of the model, by number or name; by default the newest."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class Export:
    """Write the pairs of a model in a form that other programs read."""

    model: Positional[str]
    """A model."""
    output: Annotated[Path, arg(aliases=["-o"])]
    """A new directory."""
    form: Literal["npy", "safetensors", "folder"] = "npy"
    """npy: .npy and Parquet, as clip-retrieval has them; folder: the images with metadata.jsonl."""
    version: str | None = None
    """A version, by number or name; by default the newest."""


@dataclass(frozen=True)
class Import:
    """Build a model from embeddings that are there already. A rerun goes on where it stopped."""

    folder: Positional[Path]
    """With img_emb/, text_emb/ and metadata/, as clip-retrieval has them, or an export."""
    output: Annotated[str, arg(aliases=["-o"])]
    """The store: a directory or URL; what is in one already stays."""
    image_encoder: str | None = None
    """The image encoder they were made with, by name or path; an export knows by itself."""
    text_encoder: str | None = None
    """The text encoder, likewise."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of the embeddings, float32 by default; bfloat16 takes half the room."""
    json: bool = False
    """Print JSON instead of text."""


Command = (
    Demo
    | Embed
    | Classify
    | Search
    | Explain
    | Eval
    | Tune
    | Info
    | Add
    | Remove
    | Log
    | Diff
    | Name
    | Compact
    | Export
    | Import
)
