import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from asif_jax.encoders.image import processing as image_processing
from asif_jax.encoders.image.processing import ImageProcessing, prepare, read_image_processing

PLAIN = ImageProcessing(None, 2, None, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def replace(**changes):
    return dataclasses.replace(PLAIN, **changes)


def picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, [height, width, 3]).astype(np.uint8))


def read(tmp_path, settings, name="preprocessor_config.json", default="vit"):
    (tmp_path / name).write_text(json.dumps(settings))
    return read_image_processing(tmp_path, default=default)


def test_squares_keep_the_whole_image():
    image = Image.new("RGB", (60, 20), "white")
    image.paste((255, 0, 0), (0, 0, 20, 20))
    image.paste((0, 0, 255), (40, 0, 60, 20))
    pixels = image_processing.squares([image, image], resolution=30)
    assert pixels.shape == (2, 30, 30, 3)
    assert pixels.dtype == np.uint8
    assert pixels[0, 15, 2].tolist() == [255, 0, 0]
    assert pixels[0, 15, -3].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("size", "kind", "expected"),
    [
        (96, "ViTFeatureExtractor", (96, 96)),
        (96, "DeiTFeatureExtractor", (96, 96)),
        (96, "CLIPFeatureExtractor", 96),
        ([30, 40], "ViTImageProcessor", (30, 40)),
        ({"height": 30, "width": 40}, "CLIPImageProcessorFast", (30, 40)),
        ({"shortest_edge": 30}, "BitImageProcessor", 30),
    ],
)
def test_every_form_of_size_is_read(tmp_path, size, kind, expected):
    key = "feature_extractor_type" if "Extractor" in kind else "image_processor_type"
    assert read(tmp_path, {"size": size, key: kind}).size == expected


def test_what_a_file_leaves_out_depends_on_its_kind(tmp_path):
    vit = read(tmp_path, {})
    assert (vit.size, vit.crop, vit.resample) == ((224, 224), None, Image.Resampling.BILINEAR)
    clip = read(tmp_path, {}, default="clip")
    assert (clip.size, clip.crop, clip.resample) == (224, (224, 224), Image.Resampling.BICUBIC)
    assert vit.mean == (0.5, 0.5, 0.5) != clip.mean
    assert read(tmp_path, {"image_processor_type": "CLIPImageProcessor"}) == clip


def test_steps_are_left_out(tmp_path):
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    assert read(tmp_path, dict.fromkeys(steps, False)) == PLAIN


def test_a_combined_file_is_read(tmp_path):
    processor = {"image_processor": {"size": 50}, "processor_class": "CLIPProcessor"}
    assert read(tmp_path, processor, name="processor_config.json").size == (50, 50)


def test_unsupported_settings_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"preprocessor_config\.json is missing"):
        read_image_processing(tmp_path, default="vit")
    with pytest.raises(ValueError, match=r"no image processor SamImageProcessor, only vit, sig"):
        read(tmp_path, {"image_processor_type": "SamImageProcessor"})
    with pytest.raises(
        ValueError, match=r"preprocessor_config\.json: unsupported settings: do_pad"
    ):
        read(tmp_path, {"do_pad": True})
    with pytest.raises(ValueError, match="unsupported settings: a size of longest_edge"):
        read(tmp_path, {"size": {"longest_edge": 3}})
    with pytest.raises(ValueError, match="unsupported settings"):
        read(tmp_path, {"image_mean": [0.5]})
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged image processor settings"):
        read_image_processing(tmp_path, default="vit")


@pytest.mark.parametrize(("width", "height"), [(90, 30), (30, 90), (31, 30), (2, 1)])
def test_the_shorter_edge_gets_the_length(width, height):
    shape = prepare([picture(width, height)], processing=replace(size=24)).shape
    longer = int(24 * max(width, height) / min(width, height))
    assert shape == (1, *((24, longer) if width > height else (longer, 24)), 3)


@pytest.mark.parametrize("shape", [(9, 11), (4, 11), (9, 3), (4, 3), (6, 5)])
@pytest.mark.parametrize("crop", [(6, 5), (5, 6)])
def test_crops_are_central_and_black_outside(shape, crop):
    image = picture(shape[1], shape[0])
    result = prepare([image], processing=replace(crop=crop))[0]
    assert result.shape == (*crop, 3)
    pixels = np.asarray(image)
    for row, column in np.ndindex(*crop):
        source = row + (shape[0] - crop[0]) // 2, column + (shape[1] - crop[1]) // 2
        inside = all(0 <= s < n for s, n in zip(source, shape, strict=True))
        expected = pixels[source] if inside else [0, 0, 0]
        assert result[row, column].tolist() == list(expected)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1"])
def test_any_mode_becomes_rgb(mode):
    image = picture(8, 6).convert("L" if mode == "LA" else "RGB").convert(mode)
    result = prepare([image], processing=PLAIN)
    assert (result.shape, result.dtype) == ((1, 6, 8, 3), np.uint8)
    if mode not in ("RGBA", "LA"):
        np.testing.assert_array_equal(result[0], np.asarray(image.convert("RGB")))


def test_transparency_is_put_on_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert prepare([image], processing=PLAIN).tolist() == [[[[255, 0, 0], [255, 255, 255]]]]


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"differ in size: \[\(3, 4\), \(4, 3\)\]"):
        prepare([picture(4, 3), picture(3, 4)], processing=PLAIN)


def test_normalize_follows_its_formula_and_its_slope():
    processing = replace(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    pixels = np.random.default_rng(0).integers(0, 256, [2, 5, 4, 3]).astype(np.uint8)
    expected = (pixels / 255 - np.array(processing.mean)) / np.array(processing.std)
    result = jax.jit(lambda x: image_processing.normalize(x, processing))(pixels)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)
    slope = jax.grad(lambda x: image_processing.normalize(x, processing)[..., 1].sum())
    gradient = slope(jnp.asarray(pixels, jnp.float32))
    np.testing.assert_allclose(gradient[..., 1], 1 / 255 / 0.2, rtol=1e-5)
    assert not gradient[..., 0].any()


def test_descriptions_differ_where_processing_does():
    changes = [
        {"size": 5},
        {"size": (5, 5)},
        {"crop": (3, 3)},
        {"scale": 0.5},
        {"mean": (0.0, 0.0, 0.1)},
        {"std": (1.0, 1.0, 2.0)},
        {"size": 5, "resample": 3},
    ]
    described = {image_processing.describe(replace(**change)) for change in changes}
    assert len(described) == len(changes)
