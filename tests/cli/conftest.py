import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """What the command caches stays out of the user's folder, and serves all of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    """What one command compiles, the next one finds, though it loads the encoders anew."""
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    yield
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", before)
