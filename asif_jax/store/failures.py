"""What goes wrong in a store, in one line that names the store and the cause."""

import contextlib
from collections.abc import Iterator

CHANGED = "another writer changed it meanwhile; nothing of this was kept, try again"


class StoreError(ValueError):
    """Something that a store refuses or that is wrong with it, in one line."""


@contextlib.contextmanager
def told(where: str) -> Iterator[None]:
    """Turns what goes wrong in storage into one line.

    Args:
      where: the store, or what in it.

    Raises:
      StoreError: in place of what TensorStore raises.
    """
    try:
        yield
    except StoreError as error:
        # The innermost place is said last.
        raise StoreError(_placed(where, str(error))) from error
    except (ValueError, IndexError, OSError, RuntimeError, NotImplementedError) as error:
        raise StoreError(_placed(where, _cause(str(error)))) from error


def _placed(where: str, text: str) -> str:
    return text if text.startswith(where) else f"{where}: {text}"


def _cause(text: str) -> str:
    text = " ".join(text.split(" [source locations=")[0].split())
    if text.startswith("ABORTED"):
        return CHANGED
    if "Manifest not found" in text or text.startswith("FAILED_PRECONDITION: Metadata"):
        return "its database is gone: it was compacted, open it anew"
    if text.startswith("NOT_FOUND"):
        return f"damaged, or compacted since it was opened: {text}"
    if "No space left" in text or "quota exceeded" in text:
        return f"the disk is full; nothing of this was kept ({text})"
    if "ermission denied" in text or "PERMISSION_DENIED" in text or "Read-only" in text:
        return f"no permission ({text})"
    if "CRC-32C" in text or "DATA_LOSS" in text or "checksum" in text:
        return f"damaged: {text}"
    return text
