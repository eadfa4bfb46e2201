"""Which files are images, and how they are opened."""

import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})

# Photographs come in these formats. Pillow would hand PostScript to another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# No camera in common use makes larger images, so these are more likely decompression bombs.
_MAX_PIXELS = 89_478_485


def images_below(directory: Path) -> list[Path]:
    """Lists the image files of a folder and of all folders below it, told by their suffix.

    Args:
      directory: the folder.

    Returns:
      The files, sorted.
    """
    return sorted(
        path
        for path in directory.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def image_files(path: Path) -> list[Path]:
    """Lists the image files that a path names.

    Args:
      path: a file, which is accepted whatever its suffix, or a folder, which is searched together
        with all folders below it.

    Returns:
      The files, sorted.

    Raises:
      ValueError: there is no such path, or the folder holds no images.
    """
    if not path.exists():
        raise ValueError(f"no such file or folder: {path}")
    if not path.is_dir():
        return [path]
    files = images_below(path)
    if not files:
        raise ValueError(f"no images in {path}")
    return files


def open_image(path: Path) -> Image.Image:
    """Opens an image as RGB, turned upright, with transparent parts made white.

    Args:
      path: the image file; of an animation, the first frame is used.

    Returns:
      The decoded image.

    Raises:
      ValueError: the file is missing, may not be read, is not an image, is cut short, or has more
        than 89 megapixels; the message names the file and the cause.
    """
    return decode_image(path, str(path))


def decode_image(source: Path | BinaryIO, name: str) -> Image.Image:
    """Decodes an image as RGB, turned upright, with transparent parts made white.

    Args:
      source: a file, or the bytes of one, open for reading.
      name: what to call it in errors.

    Returns:
      The decoded image.

    Raises:
      ValueError: for the same causes as `open_image`; the message begins with the name.
    """
    try:
        with warnings.catch_warnings():
            # The limit below is the one that counts: any library may change Pillow's own.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source, formats=_FORMATS) as image:
                width, height = image.size
                if width * height <= _MAX_PIXELS:
                    return _on_white(ImageOps.exif_transpose(image))
    except PermissionError as error:
        raise ValueError(f"{name}: no permission to read it") from error
    except FileNotFoundError as error:
        raise ValueError(f"{name}: no such file") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: too many pixels") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{name}: not an image, or an empty file") from error
    # Damaged files make Pillow raise ValueError, RuntimeError, struct.error and more.
    except Exception as error:
        raise ValueError(f"{name}: cut short or damaged ({error})") from error
    raise ValueError(f"{name}: {width} x {height} pixels is too large")


def _on_white(image: Image.Image) -> Image.Image:
    """The image as RGB, with a white background where it is transparent."""
    image.load()
    if image.mode.startswith("I"):
        # These have 16 bits per pixel, which convert() would clip at 255.
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
