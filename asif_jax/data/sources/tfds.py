"""Sets that TensorFlow Datasets has prepared, read by name and without TensorFlow.

A set must be prepared with file_format="array_record", which can be read record by record. Images
are decoded here, not by TFDS.
"""

import importlib
import threading
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from asif_jax.data.captions import clean_captions, require_captions
from asif_jax.data.image_set import Example, ImageSet, file_state, fingerprint
from asif_jax.data.images import decode_image
from asif_jax.data.sources.source import Options, Source

_PREFIX = "tfds:"

_DEFAULT_SPLITS = ("test", "validation")


def read_tfds(
    name: str,
    *,
    split: str | None = None,
    data_dir: Path | None = None,
    feature: str | None = None,
) -> ImageSet:
    """Reads a set of labelled or captioned images that TFDS has prepared.

    Args:
      name: what TFDS calls the set: "name" or "name/config", either with ":version" or without.
      split: a split, or a slice of one such as "test[:1000]". By default it is "test", or else
        "validation" if there is no "test" or it has no labels, or else the only split.
      data_dir: the folder in which TFDS keeps its sets; by default the one that TFDS uses.
      feature: the feature that holds the label or the captions. By default it is the supervised
        key of the set, or else its captions, or else its label, if only one feature can be meant.

    Returns:
      The set, its classes called as its metadata call them.

    Raises:
      ValueError: TFDS is missing; the set is missing, has no such split or is not prepared as
        array_record; or it has no images, or no feature that is clearly the label or the captions.
    """
    builder = _builder(name, data_dir)
    image = _image_feature(name, builder.info)
    target = _target_feature(name, builder.info, feature)
    target_type = builder.info.features[target]
    classes = tuple(target_type.names) if _kind(target_type) == "ClassLabel" else ()
    split, records = _open_split(name, builder, split, label=target if classes else None)
    place = f"{builder.info.full_name} {split}"
    lock = threading.Lock()

    def read(index: int) -> Example:
        with lock:
            record = _record(records, index, place)
        if classes and not 0 <= record[target] < len(classes):
            raise ValueError(f"{place}:{index}: no label")
        name = Path(f"{place}:{index}")
        picture = decode_image(BytesIO(record[image]), str(name))
        if classes:
            return Example(picture, int(record[target]))
        captions = clean_captions(list(_texts(record[target])))
        return Example(picture, captions=require_captions(captions, name))

    return ImageSet(
        source=f"{Path(builder.data_dir).resolve()} {split}",
        identity=fingerprint(_files(builder, split, (image, target))),
        size=len(records),
        read=read,
        place=lambda index: Path(f"{place}:{index}"),
        classes=classes,
    )


def _builder(name: str, data_dir: Path | None) -> Any:
    tfds = _library(name)
    where = data_dir if data_dir is not None else tfds.core.constants.DATA_DIR
    try:
        builder = _prepared_builder(tfds, name, str(where))
    # Without TensorFlow, the code of some sets that are not prepared cannot even be loaded.
    except (tfds.core.registered.DatasetNotFoundError, ImportError) as error:
        raise ValueError(f"no TFDS set {name} in {where}") from error
    if not builder.info.splits:
        raise ValueError(
            f"the TFDS set {name} is not prepared in {where}: "
            f"run tfds build {name} --file_format=array_record --data_dir={where}"
        )
    return builder


def _prepared_builder(tfds: Any, name: str, where: str) -> Any:
    try:
        # Prepared files describe themselves, whereas the code of some sets requires TensorFlow.
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=where)
    except tfds.core.registered.DatasetNotFoundError:
        return tfds.builder(name, data_dir=where)


def _library(name: str) -> Any:
    try:
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ValueError(
            f"reading tfds:{name} requires TensorFlow Datasets: "
            f"pip install 'asif-jax[data]' ({error})"
        ) from error


def _image_feature(name: str, info: Any) -> str:
    found = [str(key) for key, feature in info.features.items() if _is_image(feature)]
    supervised = info.supervised_keys[0] if info.supervised_keys else None
    for key in found:
        if key == (supervised or "image") or len(found) == 1:
            return key
    raise ValueError(f"the TFDS set {name} has no feature that is clearly the image: {found}")


def _target_feature(name: str, info: Any, wanted: str | None) -> Any:
    """The feature that holds the label or the captions."""
    features = {str(key): feature for key, feature in sorted(info.features.items())}
    labels = [key for key, feature in features.items() if _kind(feature) == "ClassLabel"]
    texts = [key for key, feature in features.items() if _is_text(feature)]
    supervised = (info.supervised_keys or (None, None))[1]
    captions = [key for key in texts if "caption" in key.lower()]
    usable = sorted({*labels, *texts})
    if wanted is not None:
        if wanted not in usable:
            raise ValueError(f"the TFDS set {name} has no label or text {wanted!r} among {usable}")
        return wanted
    if supervised in labels:
        return supervised
    for candidates in (captions, labels, texts):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise ValueError(f"the TFDS set {name} leaves open which feature to use: {candidates}")
    raise ValueError(f"the TFDS set {name} has neither labels nor captions: {list(features)}")


def _kind(feature: Any) -> str:
    # A sequence has all attributes of what it holds, so only its type tells the two apart.
    return type(feature).__name__


def _is_image(feature: Any) -> bool:
    # Images of other types are depth maps and the like.
    return _kind(feature) == "Image" and feature.np_dtype in (np.uint8, np.uint16)


def _is_text(feature: Any) -> bool:
    if _kind(feature) == "Sequence":
        return _is_text(feature.feature)
    if _kind(feature) == "FeaturesDict":
        return any(map(_is_text, feature.values()))
    return feature.np_dtype == np.object_


def _texts(value: Any) -> Iterator[str]:
    """The strings in a feature: it may be one, a list of them, or a mapping that holds some."""
    if isinstance(value, bytes | str):
        yield value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    elif isinstance(value, Mapping):
        named = [key for key in value if "text" in key.lower() or "caption" in key.lower()]
        for key in named or value:
            yield from _texts(value[key])
    elif isinstance(value, list | tuple) or getattr(value, "ndim", 0):
        for item in value:
            yield from _texts(item)


def _record(records: Any, index: int, place: str) -> Mapping[str, Any]:
    try:
        return records[index]
    except RuntimeError as error:
        raise ValueError(f"{place}:{index}: record cut short or damaged ({error})") from error


def _open_split(
    name: str, builder: Any, split: str | None, *, label: str | None
) -> tuple[str, Any]:
    """The split, and its records by number with images still encoded."""
    tfds = _library(name)
    features = builder.info.features
    decoders = {key: tfds.decode.SkipDecoding() for key in features if _is_image(features[key])}

    def open_(split: str) -> Any:
        try:
            return builder.as_data_source(split=split, decoders=decoders)
        except NotImplementedError as error:
            raise ValueError(
                f"the TFDS set {name} is prepared as {builder.info.file_format.value}; only "
                "array_record can be read without TensorFlow: prepare it with that file_format"
            ) from error

    splits = list(builder.info.splits)
    if split is not None:
        return split, open_(split)
    candidates = [s for s in _DEFAULT_SPLITS if s in splits] or splits
    if len(candidates) > 1 and not set(candidates) <= set(_DEFAULT_SPLITS):
        raise ValueError(f"the TFDS set {name} leaves open which split to use: {splits}")
    for candidate in candidates:
        records = open_(candidate)
        if label is None or _record(records, 0, f"{name} {candidate}")[label] >= 0:
            return candidate, records
    raise ValueError(f"the TFDS set {name} has no labels in {candidates}")


def _files(builder: Any, split: str, features: tuple[str, str]) -> Iterator[tuple[str, ...]]:
    """What the records of a split are read from."""
    yield (builder.info.full_name, *features)
    for part in builder.info.splits[split].file_instructions:
        path = Path(part.filename)
        yield path.name, file_state(path), str(part.skip), str(part.take)


def _read(source: str, options: Options) -> ImageSet:
    return read_tfds(
        source.removeprefix(_PREFIX),
        split=options.split,
        data_dir=options.data_dir,
        feature=options.feature,
    )


SOURCE = Source(
    "TFDS set (tfds:NAME)",
    matches=lambda source, _: source.startswith(_PREFIX),
    read=_read,
    options=("split", "data_dir", "feature"),
)
