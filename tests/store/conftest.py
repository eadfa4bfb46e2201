import contextlib

import pytest

from asif_jax.store import commits, compaction


@pytest.fixture
def unlocked():
    """Writers do not wait for each other, as in object storage; so one can commit within another.

    A patch of its own, which a test that undoes what it patched leaves alone.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in (commits, compaction):
            patch.setattr(module, "locked", contextlib.nullcontext)
        yield
