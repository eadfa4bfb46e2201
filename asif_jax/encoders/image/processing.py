"""From PIL images to pixels, as the preprocessor_config.json of a checkpoint says.

Resizing and cropping run on the host and give uint8, a quarter of the bytes of float32, so that
little travels to the device. Scaling and normalization belong to the encoder's pure function, which
may therefore be differentiated with respect to pixels between 0 and 255.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from PIL import Image

_HALF = (0.5, 0.5, 0.5)
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BILINEAR, _BICUBIC = int(Image.Resampling.BILINEAR), int(Image.Resampling.BICUBIC)


@dataclasses.dataclass(frozen=True)
class ImageProcessing:
    """What happens to an image before the encoder's first layer.

    Attributes:
      size: is the (height, width) to resize to; or the length of the shorter edge, when the aspect
        ratio is kept; or None, when images keep their size.
      resample: is the filter for resizing, by PIL's number.
      crop: is the (height, width) of the central part that is kept; None keeps all.
      scale: multiplies the pixels, which lie between 0 and 255.
      mean: is subtracted from each channel after scaling.
      std: divides each channel after that.
    """

    size: tuple[int, int] | int | None
    resample: int
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


# What a preprocessor_config.json leaves out depends on the kind of processor it was written for.
_SQUARE = {"size": {"height": 224, "width": 224}, "image_mean": _HALF, "image_std": _HALF}
_CENTRAL = {"resample": _BICUBIC, "do_center_crop": True, "crop_size": 224}
_CLIP = {"size": {"shortest_edge": 224}, "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "vit": _SQUARE | {"resample": _BILINEAR},
    "siglip": _SQUARE | {"resample": _BICUBIC},
    "deit": _SQUARE | _CENTRAL | {"size": {"height": 256, "width": 256}},
    "clip": _CENTRAL | _CLIP,
    "bit": _CENTRAL | _CLIP,
}


def read_image_processing(directory: Path, *, default: str) -> ImageProcessing:
    """Reads preprocessor_config.json, or the image part of a processor_config.json.

    Args:
      directory: the checkpoint's directory.
      default: the kind of processor, "vit", "siglip", "deit", "clip" or "bit", whose settings fill
        in what a file of no stated kind leaves out.

    Returns:
      The processing.

    Raises:
      ValueError: neither file, or one that asks for something unsupported; names it.

    Example:
      >>> import tempfile
      >>> directory = Path(tempfile.mkdtemp())
      >>> _ = (directory / "preprocessor_config.json").write_text('{"size": 96}')
      >>> read_image_processing(directory, default="vit").size
      (96, 96)
    """
    path, settings = _read_settings(directory)
    named = settings.get("image_processor_type", settings.get("feature_extractor_type", default))
    kind = named.lower()
    for ending in ("pil", "fast", "imageprocessor", "featureextractor"):
        kind = kind.removesuffix(ending)
    if kind not in _DEFAULTS:
        raise ValueError(f"{path}: no image processor {named}, only {', '.join(_DEFAULTS)}")
    merged = {**_DEFAULTS[kind], **{k: v for k, v in settings.items() if v is not None}}
    try:
        return _processing(merged, square=kind in ("vit", "deit"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: unsupported settings: {error}") from error


def _read_settings(directory: Path) -> tuple[Path, dict[str, Any]]:
    path, combined = directory / "preprocessor_config.json", directory / "processor_config.json"
    try:
        if path.is_file():
            return path, json.loads(path.read_bytes())
        if combined.is_file():
            return combined, json.loads(combined.read_bytes())["image_processor"]
    except (KeyError, ValueError) as error:
        raise ValueError(f"{directory}: damaged image processor settings: {error!r}") from error
    raise ValueError(f"{path} is missing")


def _processing(settings: Mapping[str, Any], *, square: bool) -> ImageProcessing:
    if settings.get("do_pad"):
        raise ValueError("do_pad")
    rescaled, normalized = settings.get("do_rescale", True), settings.get("do_normalize", True)
    return ImageProcessing(
        _size(settings["size"], square=square) if settings.get("do_resize", True) else None,
        int(settings["resample"]),
        _pair(settings["crop_size"]) if settings.get("do_center_crop") else None,
        float(settings.get("rescale_factor", 1 / 255)) if rescaled else 1.0,
        _channels(settings["image_mean"]) if normalized else (0.0, 0.0, 0.0),
        _channels(settings["image_std"]) if normalized else (1.0, 1.0, 1.0),
    )


def _size(size: Any, *, square: bool) -> tuple[int, int] | int:
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"])
    if isinstance(size, int) and not square:
        return size
    return _pair(size)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        if set(size) != {"height", "width"}:
            raise ValueError(f"a size of {', '.join(size)}")
        return int(size["height"]), int(size["width"])
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _channels(values: Any) -> tuple[float, ...]:
    red, green, blue = [values] * 3 if isinstance(values, int | float) else values
    return float(red), float(green), float(blue)


def prepare(images: Sequence[Image.Image], *, processing: ImageProcessing) -> np.ndarray:
    """Resizes and crops images.

    Args:
      images: images of any mode; what is transparent becomes white.
      processing: how to resize and crop.

    Returns:
      [batch, height, width, 3] uint8.

    Raises:
      ValueError: the processing leaves sizes alone and they differ.
    """
    arrays = [_prepare_one(image, processing) for image in images]
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(f"the images differ in size: {sorted({a.shape[:2] for a in arrays})}")
    return np.stack(arrays)


def _prepare_one(image: Image.Image, processing: ImageProcessing) -> np.ndarray:
    image = _on_white(image)
    if (size := processing.size) is not None:
        height, width = _keep_aspect(image, size) if isinstance(size, int) else size
        image = image.resize((width, height), processing.resample)
    pixels = np.asarray(image, np.uint8)
    return pixels if processing.crop is None else _central(pixels, *processing.crop)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" or not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _keep_aspect(image: Image.Image, shorter: int) -> tuple[int, int]:
    """(height, width) whose shorter edge has a given length."""
    if image.width <= image.height:
        return int(shorter * image.height / image.width), shorter
    return shorter, int(shorter * image.width / image.height)


def _central(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The central part, of an image that may be smaller: black surrounds it then."""
    rows, row = _overlap(pixels.shape[0], height)
    columns, column = _overlap(pixels.shape[1], width)
    part = pixels[rows, columns]
    if part.shape[:2] == (height, width):
        return part
    result = np.zeros([height, width, 3], pixels.dtype)
    result[row : row + part.shape[0], column : column + part.shape[1]] = part
    return result


def _overlap(length: int, wanted: int) -> tuple[slice, int]:
    """What is taken of an edge, and where in the result it starts."""
    start = (length - wanted) // 2
    if start >= 0:
        return slice(start, start + wanted), 0
    return slice(None), -start


def normalize(pixels: ArrayLike, processing: ImageProcessing) -> Array:
    """Scales and normalizes pixels.

    Args:
      pixels: [batch, height, width, 3], 0 to 255, any real type.
      processing: how to scale and normalize.

    Returns:
      [batch, height, width, 3] float32.
    """
    scaled = jnp.asarray(pixels, jnp.float32) * processing.scale
    mean, std = jnp.asarray(processing.mean), jnp.asarray(processing.std)
    return (scaled - mean) / std


def describe(processing: ImageProcessing) -> str:
    """The processing in a few words, for an encoder's identity.

    Args:
      processing: the processing.

    Returns:
      One line.

    Example:
      >>> describe(ImageProcessing(256, 3, (224, 224), 1 / 255, (0.5,) * 3, (0.5,) * 3))
      'shorter edge 256 px, filter 3, central 224 x 224 px, mean 0.5 0.5 0.5, std 0.5 0.5 0.5'
    """
    size, crop = processing.size, processing.crop
    words = []
    if size is not None:
        edges = f"shorter edge {size}" if isinstance(size, int) else f"{size[0]} x {size[1]}"
        words.append(f"{edges} px, filter {processing.resample}")
    if crop is not None:
        words.append(f"central {crop[0]} x {crop[1]} px")
    if processing.scale != 1 / 255:
        words.append(f"scale {processing.scale:g}")
    for name, values in (("mean", processing.mean), ("std", processing.std)):
        words.append(f"{name} {' '.join(f'{value:.6g}' for value in values)}")
    return ", ".join(words)


def squares(images: Sequence[Image.Image], *, resolution: int) -> np.ndarray:
    """Every image whole, stretched to a square.

    EfficientNet was evaluated on the central part of each image. A caption speaks of all of it,
    and retrieval by captions is better so.

    Args:
      images: RGB images.
      resolution: side of the square, in pixels.

    Returns:
      [batch, resolution, resolution, 3] uint8, resized bicubically.
    """
    size = (resolution, resolution)
    return np.stack(
        [np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.uint8) for image in images]
    )
