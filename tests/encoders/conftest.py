import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from jax.experimental.compilation_cache import compilation_cache

PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 16, "width": 16},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}
_CACHE_OPTIONS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="package", autouse=True)
def _programs_of_equal_encoders_compile_once(tmp_path_factory):
    """Many tests load the same small encoder anew, whose programs are the same to the compiler."""
    options = {**_CACHE_OPTIONS, "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache"))}
    former = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in former.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def _write(directory, config, shapes, processor=PROCESSOR, seed=0):
    rng = np.random.default_rng(seed)
    tensors = {
        name: rng.normal(scale=0.3, size=shape).astype(np.float32) for name, shape in shapes.items()
    }
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    return directory, {name: array.astype(np.float64) for name, array in tensors.items()}


@pytest.fixture
def write_checkpoint(tmp_path):
    """Writes a directory as transformers does: settings, and tensors of the given shapes."""
    return lambda *arguments, **options: _write(tmp_path, *arguments, **options)


@pytest.fixture(scope="module")
def keep_checkpoint(tmp_path_factory):
    """The same, in a directory of its own, for all tests of a module."""
    return lambda *arguments: _write(tmp_path_factory.mktemp("checkpoint"), *arguments)
