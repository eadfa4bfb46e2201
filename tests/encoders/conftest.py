import json

import numpy as np
import pytest
import safetensors.numpy

PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 16, "width": 16},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


@pytest.fixture
def write_checkpoint(tmp_path):
    """Writes a directory as transformers does: settings, and tensors of the given shapes."""

    def write(config, shapes, processor=PROCESSOR, seed=0):
        rng = np.random.default_rng(seed)
        tensors = {
            name: rng.normal(scale=0.3, size=shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
        return tmp_path, {name: array.astype(np.float64) for name, array in tensors.items()}

    return write
