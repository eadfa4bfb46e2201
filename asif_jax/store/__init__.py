"""Stores: embeddings and what they were made of on disk; atomic, versioned, resumable."""

from asif_jax.model import EncoderRecord, Model
from asif_jax.store.commits import append, change_settings, name_version, remove, replace
from asif_jax.store.compaction import Compacted, compact
from asif_jax.store.database import (
    Store,
    check_free,
    create,
    delete,
    is_store,
    open_store,
    row_count,
)
from asif_jax.store.failures import StoreError
from asif_jax.store.history import Difference, Version, diff, log
from asif_jax.store.layout import Header, Settings
from asif_jax.store.reading import SlotPairs, load, open_anchors, open_model, save
from asif_jax.store.records import StoredPair
from asif_jax.store.snapshots import (
    Snapshot,
    StoredPairs,
    live_parts,
    matching_rows,
    read_block,
    read_rows,
    snapshot,
)

__all__ = [
    "Compacted",
    "Difference",
    "EncoderRecord",
    "Header",
    "Model",
    "Settings",
    "SlotPairs",
    "Snapshot",
    "Store",
    "StoreError",
    "StoredPair",
    "StoredPairs",
    "Version",
    "append",
    "change_settings",
    "check_free",
    "compact",
    "create",
    "delete",
    "diff",
    "is_store",
    "live_parts",
    "load",
    "log",
    "matching_rows",
    "name_version",
    "open_anchors",
    "open_model",
    "open_store",
    "read_block",
    "read_rows",
    "remove",
    "replace",
    "row_count",
    "save",
    "snapshot",
]
