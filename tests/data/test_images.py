import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from asif_jax.data import image_files, images, open_image


def pixel(path, at=(0, 0)):
    image = open_image(path)
    assert image.mode == "RGB"
    return image.getpixel(at)


def test_transparency_becomes_white(tmp_path):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((1, 1), (255, 0, 0, 255))
    image.putpixel((2, 2), (0, 0, 0, 128))
    image.save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == (255, 255, 255)
    assert pixel(tmp_path / "a.png", (1, 1)) == (255, 0, 0)
    assert pixel(tmp_path / "a.png", (2, 2)) == (127, 127, 127)


def test_transparent_palettes_and_greys(tmp_path):
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 255, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert pixel(tmp_path / "p.png") == (255, 255, 255)
    assert pixel(tmp_path / "p.png", (1, 0)) == (255, 0, 0)
    Image.new("LA", (2, 2), (9, 0)).save(tmp_path / "la.png")
    assert pixel(tmp_path / "la.png") == (255, 255, 255)


def test_other_modes(tmp_path):
    Image.new("L", (2, 2), 77).save(tmp_path / "l.png")
    assert pixel(tmp_path / "l.png") == (77, 77, 77)
    Image.fromarray(np.full([2, 2], 77 * 256 + 5, np.uint16)).save(tmp_path / "deep.png")
    assert pixel(tmp_path / "deep.png") == (77, 77, 77)
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "c.jpg")
    assert pixel(tmp_path / "c.jpg") == (255, 255, 255)
    Image.new("1", (2, 2), 1).save(tmp_path / "bits.png")
    assert pixel(tmp_path / "bits.png") == (255, 255, 255)


def test_images_are_turned_upright(tmp_path):
    image = Image.new("RGB", (6, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (2, 6)


def test_the_first_frame_of_an_animation_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "a.gif") == (255, 0, 0)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_truncated_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, [64, 64, 3]).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"a\.{suffix}"):
        open_image(path)


def test_other_bad_files_are_named(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty\.png: not an image"):
        open_image(tmp_path / "empty.png")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.jpg: not an image"):
        open_image(tmp_path / "text.jpg")
    with pytest.raises(ValueError, match="no such file"):
        open_image(tmp_path / "gone.png")


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, struct.error, NotImplementedError])
def test_whatever_pillow_raises_on_damage_is_named(tmp_path, monkeypatch, kind):
    def fail(image):
        raise kind("odd bytes")

    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(ValueError, match=r"a\.png: cut short or damaged \(odd bytes\)"):
        open_image(tmp_path / "a.png")


def test_a_short_png_header_is_named(tmp_path):
    # Pillow raises a ValueError of its own.
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\1IHDR\0" + bytes(4))
    with pytest.raises(ValueError, match=r"a\.png: cut short or damaged"):
        open_image(tmp_path / "a.png")


def test_permission_is_named(tmp_path, monkeypatch):
    def refuse(path, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match=r"a\.png: no permission"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("factor", [1, 3])
def test_bombs_are_refused(tmp_path, monkeypatch, factor):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "_MAX_PIXELS", 399)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399 // factor)
    with pytest.raises(ValueError, match=r"a\.png.* too (large|many)"):
        open_image(tmp_path / "a.png")


def test_image_files_are_found(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "deep/a.JPEG", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    assert image_files(tmp_path) == [tmp_path / "b.png", tmp_path / "deep" / "a.JPEG"]
    assert image_files(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
    with pytest.raises(ValueError, match="no such file or folder"):
        image_files(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        image_files(tmp_path / "empty")


def test_postscript_is_no_image_whatever_its_name(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match="not an image"):
        open_image(path)
