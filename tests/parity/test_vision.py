"""Image encoders against transformers, with the weights that it wrote, through both chains."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from asif_jax import encoders
from asif_jax.data import open_image
from asif_jax.encoders.image import processing as image_processing

_SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 48,
    "patch_size": 8,
}
_ViT = {**_SIZES, "intermediate_size": 96}
_WIDE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 12}


def _clip(**sizes):
    vision = {**_ViT, **sizes}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 50}
    text |= {"intermediate_size": 16, "bos_token_id": 48, "eos_token_id": 49}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    return transformers.CLIPModel(config)


def _siglip():
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 50}
    text |= {"intermediate_size": 16, "bos_token_id": 48, "eos_token_id": 49}
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=_ViT))


def _dinov2(**sizes):
    return transformers.Dinov2Model(transformers.Dinov2Config(**_SIZES | sizes))


def _registers(**sizes):
    config = transformers.Dinov2WithRegistersConfig(**_SIZES | sizes)
    return transformers.Dinov2WithRegistersModel(config)


# Two configurations or more of every architecture.
MODELS = {
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**_ViT)),
    "vit, other sizes, without bias": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(
            **{**_ViT, **_WIDE}, qkv_bias=False, hidden_act="gelu_new", layer_norm_eps=1e-5
        )
    ),
    "dino": lambda: transformers.ViTModel(
        transformers.ViTConfig(**_ViT, layer_norm_eps=1e-6), add_pooling_layer=False
    ),
    "deit": lambda: transformers.DeiTModel(transformers.DeiTConfig(**_ViT)),
    "deit, other sizes, with classifiers": lambda: (
        transformers.DeiTForImageClassificationWithTeacher(
            transformers.DeiTConfig(**{**_ViT, **_WIDE})
        )
    ),
    "dinov2": lambda: _dinov2(layerscale_value=0.5),
    "dinov2, swiglu": lambda: _dinov2(use_swiglu_ffn=True, **_WIDE),
    "dinov2, registers": lambda: _registers(),
    "dinov2, registers, swiglu": lambda: _registers(
        use_swiglu_ffn=True, num_register_tokens=3, **_WIDE
    ),
    "clip": lambda: _clip(),
    "clip, other sizes, exact gelu": lambda: _clip(hidden_act="gelu", **_WIDE),
    "clip, vision alone": lambda: transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**_ViT, projection_dim=20)
    ),
    "clip, without projection": lambda: transformers.CLIPVisionModel(
        transformers.CLIPVisionConfig(**_ViT)
    ),
    "siglip": lambda: _siglip(),
    "siglip, vision alone, exact gelu": lambda: transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(**{**_ViT, **_WIDE}, hidden_act="gelu")
    ),
}

_VIT = transformers.ViTImageProcessorPil
_DEIT = transformers.DeiTImageProcessorPil
_CLIP = transformers.CLIPImageProcessorPil
_BIT = transformers.BitImageProcessorPil
_SIGLIP = transformers.SiglipImageProcessorPil

PROCESSORS = {
    "vit": lambda: _VIT(size=48),
    "vit, imagenet": lambda: _VIT(
        size=56, resample=3, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    ),
    "vit, no steps but resizing": lambda: _VIT(size=31, do_rescale=False, do_normalize=False),
    "vit, oblong": lambda: _VIT(size={"height": 40, "width": 64}),
    "deit": lambda: _DEIT(size=56, crop_size=48),
    "deit, padded": lambda: _DEIT(size=40, crop_size={"height": 47, "width": 33}),
    "bit, as dinov2": lambda: _BIT(size={"shortest_edge": 64}, crop_size=49),
    "clip": lambda: _CLIP(size={"shortest_edge": 48}, crop_size=48),
    "clip, cropped without resizing": lambda: _CLIP(do_resize=False, crop_size=51),
    "siglip": lambda: _SIGLIP(size={"height": 48, "width": 48}),
}


@pytest.fixture(scope="module")
def pictures():
    """Landscape, portrait, tiny and long; smooth with some noise, as photographs are."""
    rng = np.random.default_rng(0)

    def picture(width, height):
        x, y = np.linspace(0, 3, width), np.linspace(0, 2, height)[:, None]
        waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0, 3, [3, 3])]
        noise = rng.normal(scale=12, size=[height, width, 3])
        pixels = 127 + 100 * np.stack(waves, axis=-1) + noise
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

    sizes = [(160, 120), (75, 133), (48, 48), (49, 47), (5, 3), (1, 9), (301, 37)]
    return [picture(*size) for size in sizes]


def reference_pixels(processor, images):
    """[batch, height, width, 3] as transformers prepares them."""
    prepared = [
        processor(image, return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
        for image in images
    ]
    return np.stack(prepared).transpose(0, 2, 3, 1)


def written_processor(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    return image_processing.read_image_processing(tmp_path, default="vit")


def largest_difference(processor, processing, images):
    expected = reference_pixels(processor, images)
    prepared = image_processing.prepare(images, processing=processing)
    return np.abs(np.asarray(image_processing.normalize(prepared, processing)) - expected).max()


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_equal(tmp_path, pictures, name):
    processor = PROCESSORS[name]()
    processing = written_processor(tmp_path, processor)
    assert largest_difference(processor, processing, pictures) <= 1e-5


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_of_photographs_are_equal(tmp_path, stamps, name):
    files = sorted((stamps / "animals").rglob("*.png"))[::9]
    assert len(files) > 5
    processor = PROCESSORS[name]()
    processing = written_processor(tmp_path, processor)
    images = [open_image(file) for file in files]
    assert largest_difference(processor, processing, images) <= 1e-5


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK"])
def test_pixels_of_other_modes_are_equal(tmp_path, pictures, mode):
    processor = _CLIP(size={"shortest_edge": 48}, crop_size=48)
    processing = written_processor(tmp_path, processor)
    images = [image.convert("L" if mode == "LA" else "RGB").convert(mode) for image in pictures]
    for image in images if mode in ("LA", "RGBA") else ():
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    assert largest_difference(processor, processing, images) <= 1e-5


@pytest.mark.parametrize("kind", ["ViT", "DeiT", "CLIP", "Bit", "Siglip"])
def test_settings_left_out_are_filled_in_alike(tmp_path, pictures, kind):
    settings = {"image_processor_type": f"{kind}ImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    processor = getattr(transformers, f"{kind}ImageProcessorPil")()
    processing = image_processing.read_image_processing(tmp_path, default="vit")
    assert largest_difference(processor, processing, pictures[:3]) <= 1e-5


@pytest.fixture(scope="module", params=MODELS)
def written(request, tmp_path_factory):
    """A model of random weights, none of them zero or one, and the directory it was written to."""
    torch.manual_seed(zlib.crc32(request.param.encode()))
    model = MODELS[request.param]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.08 * torch.randn_like(parameter)
    directory = tmp_path_factory.mktemp("model")
    model.save_pretrained(directory)
    _CLIP(size={"shortest_edge": 48}, crop_size=48).save_pretrained(directory)
    return model, directory


def reference_embeddings(model, pixels, pooling):
    """Of normalized pixels, [batch, height, width, 3]."""
    pixels = torch.tensor(np.asarray(pixels).transpose(0, 3, 1, 2))
    kind = model.config.model_type
    options = {} if kind.startswith("dinov2") else {"interpolate_pos_encoding": True}
    # A classifier's body, under the name of its architecture.
    body = getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        if kind in ("clip", "siglip"):
            result = model.get_image_features(pixels, **options)
            result = getattr(result, "pooler_output", result)
        elif kind in ("clip_vision_model", "siglip_vision_model"):
            outputs = model(pixels, **options)
            result = getattr(outputs, "image_embeds", None)
            result = outputs.pooler_output if result is None else result
        else:
            tokens = body(pixels, **options).last_hidden_state
            registers = getattr(model.config, "num_register_tokens", 0)
            first = 1 + (kind == "deit") + registers
            result = tokens[:, 0] if pooling == "cls" else tokens[:, first:].mean(axis=1)
    return result.numpy()


def load(directory, **options):
    kind = json.loads((directory / "config.json").read_text())["model_type"]
    poolings = (None,) if kind.startswith(("clip", "siglip")) else ("cls", "mean")
    for pooling in poolings:
        yield pooling, encoders.load(directory, modality="image", pooling=pooling, **options)


def relative_difference(actual, expected):
    return np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()


def test_embeddings_through_both_chains(written, pictures):
    model, directory = written
    processor = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    pixels = reference_pixels(processor, pictures)
    for pooling, encoder in load(directory):
        expected = reference_embeddings(model, pixels, pooling)
        assert expected.shape == (len(pictures), encoder.dimension)
        batch = encoder.preprocess(pictures)
        actual = jax.jit(encoder.apply)(encoder.params, batch)
        assert actual.dtype == jnp.float32
        assert relative_difference(actual, expected) <= 1e-4


def test_embeddings_of_photographs(written, stamps):
    model, directory = written
    files = sorted((stamps / "animals").rglob("*.png"))[::15]
    images = [open_image(file) for file in files]
    processor = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    pixels = reference_pixels(processor, images)
    for pooling, encoder in load(directory):
        expected = reference_embeddings(model, pixels, pooling)
        actual = encoder.apply(encoder.params, encoder.preprocess(images))
        assert relative_difference(actual, expected) <= 1e-4


def test_bfloat16_keeps_the_direction(written, pictures):
    model, directory = written
    processor = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    pixels = reference_pixels(processor, pictures)
    for pooling, encoder in load(directory, dtype=jnp.bfloat16):
        expected = reference_embeddings(model, pixels, pooling)
        actual = jax.jit(encoder.apply)(encoder.params, encoder.preprocess(pictures))
        assert actual.dtype == jnp.float32
        lengths = np.linalg.norm(expected, axis=-1) * np.linalg.norm(actual, axis=-1)
        assert np.min(np.sum(expected * actual, axis=-1) / lengths) >= 0.999


@pytest.mark.parametrize("shape", [(96, 96), (24, 59)])
def test_other_resolutions(written, shape):
    model, directory = written
    pixels = np.random.default_rng(1).integers(0, 256, [2, *shape, 3]).astype(np.uint8)
    processing = image_processing.read_image_processing(directory, default="vit")
    normalized = image_processing.normalize(pixels, processing)
    for pooling, encoder in load(directory):
        expected = reference_embeddings(model, normalized, pooling)
        actual = jax.jit(encoder.apply)(encoder.params, pixels)
        assert relative_difference(actual, expected) <= 1e-4
