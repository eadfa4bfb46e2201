import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convolution_oracle import convolve_same
from flax import nnx

from asif_jax.data import open_image
from asif_jax.encoders import EfficientNetLite
from asif_jax.encoders.encoder import pure
from asif_jax.encoders.image import efficientnet_lite
from asif_jax.encoders.packages import installed_weights
from asif_jax.encoders.weights import published as weights

TINY = efficientnet_lite.EfficientNetLiteConfig(width=0.1, depth=0.3, resolution=32)


def random_checkpoint(seed=0):
    """A checkpoint of the tiny variant, in PyTorch's names and layout, BatchNorms apart."""
    _, state = nnx.split(nnx.eval_shape(lambda: EfficientNetLite(TINY, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(seed)
    tensors = {}
    for path, leaf in nnx.to_flat_state(state):
        name, shape = efficientnet_lite.checkpoint_name(path), leaf.get_value().shape
        if name.startswith("_fc"):
            tensors[name] = rng.normal(size=shape[::-1]).astype(np.float32)
        elif path[-1] == "kernel":
            shape = shape if len(shape) == 4 else (1, 1, *shape)
            fan_in = np.prod(shape[:3])
            kernel = rng.normal(scale=1.5 * fan_in**-0.5, size=shape).transpose(3, 2, 0, 1)
            tensors[name] = kernel.astype(np.float32)
            tensors |= random_batch_norm(rng, name, shape[3])
    return tensors


def batch_norm_name(convolution):
    *block, name, _ = convolution.split(".")
    norms = {"_expand_conv": 0, "_depthwise_conv": 1, "_project_conv": 2}
    outer = {"_conv_stem": 0, "_conv_head": 1}
    return ".".join([*block, f"_bn{(norms if block else outer)[name]}"])


def random_batch_norm(rng, convolution, channels):
    norm = batch_norm_name(convolution)
    return {
        f"{norm}.weight": rng.uniform(0.5, 1.5, channels).astype(np.float32),
        f"{norm}.bias": rng.normal(size=channels).astype(np.float32),
        f"{norm}.running_mean": rng.normal(size=channels).astype(np.float32),
        f"{norm}.running_var": rng.uniform(0.5, 2.0, channels).astype(np.float32),
    }


def oracle_features(tensors, pixels):
    """The network with its BatchNorms unfolded, float64; shapes come from the checkpoint."""
    t = {name: array.astype(np.float64) for name, array in tensors.items()}

    def convolve(x, name, stride=1, groups=1):
        y = convolve_same(x, t[f"{name}.weight"], stride, groups)
        norm = batch_norm_name(f"{name}.weight")
        y = (y - t[f"{norm}.running_mean"]) / np.sqrt(t[f"{norm}.running_var"] + 1e-3)
        return y * t[f"{norm}.weight"] + t[f"{norm}.bias"]

    def relu6(x):
        return np.clip(x, 0, 6)

    x = relu6(convolve((pixels - 127.0) / 128.0, "_conv_stem", stride=2))
    # Seven stages of one block at this depth, the first of each with the stage's stride.
    repeats = [1, 1, 1, 1, 1, 2, 1]
    strides = [1, 2, 2, 2, 1, 2, 1]
    index = 0
    for repeat, stage_stride in zip(repeats, strides, strict=True):
        for stride in [stage_stride] + [1] * (repeat - 1):
            block, y = f"_blocks.{index}", x
            if f"{block}._expand_conv.weight" in t:
                y = relu6(convolve(y, f"{block}._expand_conv"))
            y = relu6(convolve(y, f"{block}._depthwise_conv", stride, groups=y.shape[-1]))
            y = convolve(y, f"{block}._project_conv")
            x = x + y if stride == 1 and x.shape == y.shape else y
            index += 1
    return relu6(convolve(x, "_conv_head")).mean(axis=(1, 2))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    tensors = random_checkpoint()
    model = weights.with_weights(
        lambda rngs: EfficientNetLite(TINY, rngs=rngs),
        efficientnet_lite.fold_batch_norms(tensors),
        efficientnet_lite.checkpoint_name,
        source=tmp_path_factory.mktemp("weights"),
    )
    return model, tensors


@pytest.mark.parametrize("shape", [(32, 32), (35, 46)])
def test_matches_oracle(tiny, shape):
    model, tensors = tiny
    pixels = np.random.default_rng(1).integers(0, 256, size=[2, *shape, 3]).astype(np.uint8)
    apply, params = pure(model)
    expected = oracle_features(tensors, pixels.astype(np.float64))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(jax.jit(apply)(params, pixels), expected, atol=2e-4)
    logits = expected @ tensors["_fc.weight"].T.astype(np.float64) + tensors["_fc.bias"]
    np.testing.assert_allclose(
        jax.jit(EfficientNetLite.classify)(model, pixels), logits, rtol=1e-3, atol=2e-3
    )


def test_vmap_and_grad_with_respect_to_the_pixels(tiny):
    model, tensors = tiny
    apply, params = pure(model)
    rng = np.random.default_rng(2)
    pixels = rng.uniform(0, 255, size=[2, 32, 32, 3])
    mapped = jax.jit(jax.vmap(lambda x: apply(params, x[None])[0]))(pixels)
    np.testing.assert_allclose(mapped, apply(params, pixels), rtol=1e-4, atol=1e-5)
    weight, direction = rng.normal(size=[2, 1280]), rng.normal(size=pixels.shape)

    def oracle_loss(step):
        return np.sum(oracle_features(tensors, pixels + step * direction) * weight)

    slope = (oracle_loss(1e-4) - oracle_loss(-1e-4)) / 2e-4
    slope_of = jax.jit(jax.grad(lambda x: jnp.sum(apply(params, x) * weight)))
    gradient = slope_of(jnp.asarray(pixels))
    np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=2e-2)


def test_missing_batch_norm_is_named(tmp_path):
    tensors = random_checkpoint()
    del tensors["_blocks.2._bn1.running_var"]
    with pytest.raises(KeyError, match=r"_blocks\.2\._bn1\.running_var"):
        efficientnet_lite.fold_batch_norms(tensors)


# ImageNet-1k indices of things the stamps show.
CLEAR_PHOTOGRAPHS = {
    "animals/mammals/cats/lion.png": 291,
    "animals/mammals/equines/zebra.png": 340,
    "food/fruit/banana.png": 954,
    "food/fruit/lemon.png": 951,
    "food/fruit/pineapple.png": 953,
    "food/fruit/strawberry.png": 949,
    "hobbies/music/string/cello.png": 486,
    "sports/soccer.png": 805,
}


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2"])
def test_names_clear_photographs(stamps, installed_encoder, name):
    encoder = installed_encoder(name)
    files = [stamps / file for file in CLEAR_PHOTOGRAPHS]
    pixels = encoder.preprocess([open_image(file) for file in files])
    path = installed_weights(name)
    model = efficientnet_lite.load_efficientnet_lite(path, efficientnet_lite.CONFIGS[name])
    predicted = np.asarray(jax.jit(EfficientNetLite.classify)(model, pixels)).argmax(axis=-1)
    assert predicted.tolist() == list(CLEAR_PHOTOGRAPHS.values())
