"""The choice of a stored model's method and settings, and the calibration of its scores."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asif_jax import methods, store
from asif_jax.core.anchors import Anchors
from asif_jax.data import ImageSet
from asif_jax.data.prompts import GENERAL, sentences
from asif_jax.encoders import Encoder
from asif_jax.jobs.embedding.cache import embed_sentences, embed_set
from asif_jax.methods.calibration import Calibration
from asif_jax.methods.comparison import Naming, Trial, calibrate, compare
from asif_jax.methods.method import Method
from asif_jax.store import Settings, Store

# Of fewer pairs too few can be held out; of more, holding some out takes minutes.
_FEWEST, _MOST = 30, 100_000

# Captions to choose from when a set without classes is named by its captions.
_MOST_CAPTIONS = 1_000


def candidates(
    *, method: str | None = None, ks: Sequence[int] = (), ps: Sequence[float] = ()
) -> list[Method]:
    """The methods to try.

    Args:
      method: the only one to try, by name; by default several kinds.
      ks: values of k to try of the methods that keep some similarities.
      ps: values of p, likewise.

    Returns:
      The methods, in the order to try them.

    Raises:
      ValueError: values for a method that takes none.

    Example:
      >>> [m.name for m in candidates(method="cca")]
      ['cca']
    """
    if method is None and not (ks or ps):
        own = [methods.two_cosines(p=p) for p in (None, 1.0, 1.5, 3.0)]
        return [*own, *(methods.named(name) for name in ("asif", "cca", "paper"))]
    name = methods.best().name if method in (None, "best") else method
    grid = [
        {**({"k": k} if k else {}), **({"p": p} if p else {})}
        for k in (ks or (None,))
        for p in (ps or (None,))
    ]
    return [methods.named(name, settings) for settings in grid]


def tune(
    pairs: Anchors,
    tried: Sequence[Method],
    *,
    labelled: ImageSet | None = None,
    encoders: Mapping[str, Encoder] | None = None,
    cache: Path | None = None,
    splits: int = 3,
    progress: bool = True,
) -> Iterator[Trial]:
    """Tries methods on held-out pairs of a model, and on naming the images of another set.

    Args:
      pairs: of the model.
      tried: the methods.
      labelled: images to name: by their classes, or, in a set of captions, each by its own first
        caption among those of the first 1,000 images.
      encoders: modality -> the model's encoder, to embed the labelled set.
      cache: a directory for the embeddings of the labelled set.
      splits: how many times pairs are held out.
      progress: show progress bars on stderr.

    Returns:
      A trial of each method, in order.

    Raises:
      ValueError: too few pairs, a k beyond them, or nothing readable in the labelled set.
    """
    live = int(pairs.live.sum())
    for method in tried:
        if (k := method.settings.get("k", 1)) > live:
            raise ValueError(f"k must be at most the number of pairs: got k={k}, {live} pairs")
    naming = None
    if labelled is not None:
        assert encoders is not None and cache is not None
        naming = _naming(labelled, encoders, cache=cache, progress=progress)
    return compare(pairs, tried, naming=naming, splits=splits)


def apply(opened: Store, method: Method, *, message: str) -> None:
    """Makes a method that of a store, with probabilities fitted to it, in one commit.

    Args:
      opened: the store.
      method: the method.
      message: for the log.

    Raises:
      StoreError: the store cannot be written.
    """
    calibration = _calibration(store.open_anchors(store.snapshot(opened)), method)
    settings = Settings(method.name, dict(method.settings), calibration)
    store.change_settings(opened, settings, message=message)


def calibrate_store(opened: Store) -> None:
    """Fits probabilities to the method of a store that has none yet.

    Nothing is done for fewer than 30 pairs, or for more than 100,000, whose calibration takes
    minutes and is left to `apply`.

    Args:
      opened: the store.

    Raises:
      StoreError: the store cannot be written.
    """
    found = store.snapshot(opened)
    if found.settings.calibration or not _FEWEST <= int(found.live.sum()) <= _MOST:
        return
    method = methods.named(found.settings.method, found.settings.settings)
    calibration = _calibration(store.open_anchors(found), method)
    if calibration is not None:
        settings = found.settings._replace(calibration=calibration)
        store.change_settings(opened, settings, message="calibrate")


def _calibration(pairs: Anchors, method: Method) -> Calibration | None:
    """The calibration, if there are pairs enough of two modalities."""
    if int(pairs.live.sum()) < _FEWEST or len(pairs.embeddings) < 2:
        return None
    return calibrate(method, pairs)


def _naming(
    labelled: ImageSet, encoders: Mapping[str, Encoder], *, cache: Path, progress: bool
) -> Naming:
    """The images of a set, and the sentences they are named by."""
    options: dict[str, Any] = {"cache": cache, "progress": progress}
    parts = [part for part in embed_set(labelled, encoders["image"], **options) if len(part.labels)]
    if not parts:
        raise ValueError(f"none of {labelled.size} images in {labelled.source} could be read")
    inputs = np.concatenate([part.embeddings for part in parts])
    if labelled.classes:
        templates, labels = GENERAL, np.concatenate([part.labels for part in parts])
        texts = sentences(labelled.classes, templates)
    else:
        captions = [several[0] for part in parts for several in part.captions][:_MOST_CAPTIONS]
        texts = list(dict.fromkeys(captions))
        templates, inputs = ("{}",), inputs[:_MOST_CAPTIONS]
        labels = np.asarray([texts.index(caption) for caption in captions])
    prompts = embed_sentences(texts, encoders["text"], **options)
    return Naming(inputs, prompts.reshape(-1, len(templates), prompts.shape[-1]), labels)
