import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vision_oracle
from PIL import Image
from vision_oracle import CONFIGS, SIDE, shapes

from asif_jax import encoders
from asif_jax.encoders.architectures import ARCHITECTURES
from asif_jax.encoders.image import processing as image_processing

KINDS = list(CONFIGS)
POOLED = [kind for kind in KINDS if ARCHITECTURES["image"][kind].poolings]


@pytest.fixture(scope="module", params=KINDS)
def written(request, keep_checkpoint):
    """Kind, directory, and its tensors in float64."""
    kind = request.param
    return kind, *keep_checkpoint(CONFIGS[kind], shapes(kind))


@pytest.fixture(scope="module")
def encoder(written):
    """What `written` holds, loaded and compiled once for all tests."""
    return encoders.load(written[1])


def random_pixels(count=3, shape=(SIDE, SIDE), seed=0):
    return np.random.default_rng(seed).integers(0, 256, [count, *shape, 3]).astype(np.uint8)


def run(encoder, pixels):
    return jax.jit(encoder.apply)(encoder.params, pixels)


def normalized(pixels, directory):
    processor = json.loads((directory / "preprocessor_config.json").read_text())
    mean, std = np.array(processor["image_mean"]), np.array(processor["image_std"])
    return (pixels / 255 - mean) / std


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_matches_oracle(written, encoder, pooling):
    kind, directory, tensors = written
    if pooling and kind not in POOLED:
        with pytest.raises(ValueError, match=f"pooling 'mean' for {kind}: none to choose"):
            encoders.load(directory, pooling=pooling)
        return
    encoder = encoders.load(directory, pooling=pooling) if pooling else encoder
    pixels = random_pixels()
    images = normalized(pixels.astype(np.float64), directory)
    expected = vision_oracle.embed(kind, tensors, images, pooling or "cls")
    result = run(encoder, pixels)
    assert result.shape == (3, encoder.dimension)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_slope_with_respect_to_the_pixels(written, encoder):
    kind, directory, tensors = written
    rng = np.random.default_rng(1)
    pixels = rng.uniform(0, 255, [2, SIDE, SIDE, 3])
    weight, direction = rng.normal(size=[2, encoder.dimension]), rng.normal(size=pixels.shape)

    def oracle_loss(step):
        images = normalized(pixels + step * direction, directory)
        return np.sum(vision_oracle.embed(kind, tensors, images) * weight)

    slope = (oracle_loss(1e-3) - oracle_loss(-1e-3)) / 2e-3
    loss = jax.grad(lambda x: jnp.sum(encoder.apply(encoder.params, x) * weight))
    gradient = jax.jit(loss)(jnp.asarray(pixels, jnp.float32))
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-3)


def test_composes_with_vmap(encoder):
    pixels = random_pixels()
    mapped = jax.jit(jax.vmap(lambda x: encoder.apply(encoder.params, x[None])[0]))(pixels)
    expected = run(encoder, pixels)
    np.testing.assert_allclose(mapped, expected, rtol=1e-4, atol=1e-4)


def test_bfloat16_keeps_the_direction(written, encoder):
    half = encoders.load(written[1], dtype=jnp.bfloat16)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(half.params) if leaf.ndim > 1}
    assert kinds == {jnp.dtype(jnp.bfloat16)}
    assert half.identity == f"{encoder.identity} bfloat16"
    pixels = random_pixels(8)
    halves, wholes = (np.asarray(run(e, pixels)) for e in (half, encoder))
    assert halves.dtype == np.float32
    assert not np.array_equal(halves, wholes)
    lengths = np.linalg.norm(halves, axis=-1) * np.linalg.norm(wholes, axis=-1)
    assert np.min(np.sum(halves * wholes, axis=-1) / lengths) > 0.999


@pytest.mark.parametrize("shape", [(SIDE, 2 * SIDE), (8, 12), (SIDE + 3, SIDE + 1)])
def test_other_resolutions(encoder, shape):
    pixels = random_pixels(2, shape)
    result = run(encoder, pixels)
    assert np.isfinite(result).all()
    assert result.shape == (2, encoder.dimension)
    whole = pixels[:, : shape[0] // 4 * 4, : shape[1] // 4 * 4]
    np.testing.assert_array_equal(result, run(encoder, whole))


def test_preprocessing_is_the_checkpoints_own(written, encoder):
    _, directory, _ = written
    images = [Image.new("RGB", (30, 20), "red"), Image.new("L", (9, 60), 40)]
    processing = image_processing.read_image_processing(directory, default="clip")
    batch = encoder.preprocess(images)
    assert (batch.shape, batch.dtype) == ((2, SIDE, SIDE, 3), np.uint8)
    np.testing.assert_array_equal(batch, image_processing.prepare(images, processing=processing))
    assert encoder.modality == "image"


def test_heads_are_left_out(written, write_checkpoint):
    kind, directory, _ = written
    head = {"classifier.weight": (4, 8)} if kind != "clip_vision_model" else {"logit_scale": ()}
    prefix = "" if kind.endswith("_vision_model") else f"{kind}."
    with_head = {f"{prefix}{name}": shape for name, shape in shapes(kind).items()} | head
    expected = jax.tree.leaves(encoders.load(directory).params)
    # The same random numbers, as the head comes last.
    directory, _ = write_checkpoint(CONFIGS[kind], with_head)
    result = jax.tree.leaves(encoders.load(directory).params)
    for array, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(array, other)
    directory, _ = write_checkpoint(CONFIGS[kind], with_head | {"surprise.weight": (2,)})
    with pytest.raises(ValueError, match=r"holds the tensor surprise\.weight"):
        encoders.load(directory)


def test_missing_and_misshaped_tensors_are_named(written, write_checkpoint):
    kind, *_ = written
    name = next(name for name in shapes(kind) if ".1." in name and name.endswith(".weight"))
    without = {n: shape for n, shape in shapes(kind).items() if n != name}
    directory, _ = write_checkpoint(CONFIGS[kind], without)
    short = name.removeprefix("vision_model.")
    with pytest.raises(ValueError, match=f"lacks the tensor {short}$"):
        encoders.load(directory)
    directory, _ = write_checkpoint(CONFIGS[kind], without | {name: (3, 5)})
    with pytest.raises(ValueError, match=rf"tensor {short} .*\(5, 3\), which should be \(8, \d+\)"):
        encoders.load(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "tanh"}, "unsupported activation 'tanh', not among gelu"),
        ({"num_hidden_layers": 3}, r"lacks the tensors .*\.2\."),
        ({"image_size": 20}, r"position_embedding.*should be \(1, 26, 8\)"),
        ({"image_size": [16, 16]}, r"unsupported image_size \[16, 16\]: only squares"),
        ({"patch_size": [4, 4]}, r"unsupported patch_size \[4, 4\]: only squares"),
        ({"model_type": "swin"}, "unsupported model_type 'swin'; supported are .*clip, .*, vit"),
    ],
)
def test_unsupported_configurations_are_named(write_checkpoint, change, message):
    directory, _ = write_checkpoint({**CONFIGS["vit"], **change}, shapes("vit"))
    with pytest.raises(ValueError, match=message):
        encoders.load(directory)


def test_a_misshaped_layer_scale_is_named(write_checkpoint):
    scale = {"encoder.layer.1.layer_scale2.lambda1": (3,)}
    directory, _ = write_checkpoint(CONFIGS["dinov2"], shapes("dinov2") | scale)
    with pytest.raises(ValueError, match=r"1\.layer_scale2\.lambda1 .*\(3,\).*should be \(8,\)"):
        encoders.load(directory)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_missing_files_are_named(write_checkpoint, file):
    directory, _ = write_checkpoint(CONFIGS["vit"], shapes("vit"))
    (directory / file).unlink()
    with pytest.raises(ValueError, match=file):
        encoders.load(directory)


def test_identities_follow_weights_settings_and_pooling(write_checkpoint):
    def identity(seed=0, pooling=None, processor=None, **config):
        options = {} if processor is None else {"processor": processor}
        directory, _ = write_checkpoint(
            {**CONFIGS["vit"], **config}, shapes("vit"), seed=seed, **options
        )
        return encoders.load(directory, pooling=pooling).identity

    assert identity() == identity()
    others = [
        identity(),
        identity(seed=1),
        identity(pooling="mean"),
        identity(hidden_act="quick_gelu"),
        identity(processor={"size": 16}),
        identity(processor={"size": 20}),
    ]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize("kind", KINDS)
def test_load_knows_the_architecture(write_checkpoint, kind):
    directory, _ = write_checkpoint(CONFIGS[kind], shapes(kind))
    encoder = encoders.load(directory)
    assert (encoder.modality, encoder.name) == ("image", directory.name)
    assert encoder.identity.startswith(f"{kind} ")
    for options, message in [
        ({"modality": "text"}, "encodes image, not text"),
        ({"prompt": "query"}, "takes no prompt"),
        ({"pooling": "median"}, "pooling 'median'"),
        ({"dtype": jnp.float16}, "dtype must be float32 or bfloat16: got float16"),
        ({"revision": "main"}, "not on the hub"),
    ]:
        with pytest.raises(ValueError, match=message):
            encoders.load(directory, **options)
