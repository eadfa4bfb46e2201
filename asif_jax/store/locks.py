"""One writer at a time, where the storage allows it."""

import contextlib
import os
from collections.abc import Iterator

import tensorstore as ts

try:
    import fcntl
except ImportError:
    fcntl = None


@contextlib.contextmanager
def locked(root: ts.KvStore) -> Iterator[None]:
    """Waits until no other thread or process writes to a store, and keeps them waiting meanwhile.

    Without it, what two write at the same time is told apart when it lands, and one is refused. In
    object storage that is so; but some programs that were often refused crashed in TensorStore
    0.1.86, and who waits need not try again.

    Args:
      root: the storage of the store.
    """
    spec = root.spec().to_json()
    with contextlib.ExitStack() as stack:
        if spec["driver"] == "file" and fcntl is not None:
            # The folder itself is locked, which leaves no file; a network may not allow it.
            with contextlib.suppress(OSError):
                descriptor = os.open(spec["path"], os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
