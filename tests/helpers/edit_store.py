"""Edits of a store, tried in a process of their own: STORE. Prints why they are refused."""

import json
import sys
from pathlib import Path

import stores

from asif_jax import store
from asif_jax.store import Settings, StoreError

EDITS = {
    "append": lambda opened: store.append(opened, stores.embeddings(9, 1), stores.pairs(9, "new")),
    "remove": lambda opened: store.remove(opened, [0, 5]),
    "settings": lambda opened: store.change_settings(opened, Settings("paper", {"k": 1, "p": 1.0})),
    "name": lambda opened: store.name_version(opened, 1, "first"),
    "compact": lambda opened: store.compact(opened, progress=False),
}


def refusal(where, edit):
    """Why an edit is refused; nothing if it is not."""
    try:
        EDITS[edit](store.open_store(where))
    except StoreError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    print(json.dumps({edit: refusal(Path(sys.argv[1]), edit) for edit in EDITS}))
