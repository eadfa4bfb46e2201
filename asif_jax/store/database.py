"""Making and opening a store: on a disk, or in object storage."""

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import tensorstore as ts

from asif_jax.store.failures import StoreError, told
from asif_jax.store.layout import (
    POINTER,
    EncoderRecord,
    Header,
    Pointer,
    Settings,
    array_key,
    new_context,
    open_database,
    pack_header,
    pack_settings,
    read_pointer,
    unpack_header,
    write_pointer,
)
from asif_jax.store.records import pack

_DATABASE = re.compile(rb"(db-[0-9a-f]{16})/")


class Store(NamedTuple):
    """An open store.

    Attributes:
      url: says where it is.
      root: is the storage it lies in.
      pointer: says which database of it is open.
      header: holds what never changes.
      kv: is the database, as it is now.
      context: is shared by all that is opened of it.
    """

    url: str
    root: ts.KvStore
    pointer: Pointer
    header: Header
    kv: ts.KvStore
    context: ts.Context


def create(where: str | Path, header: Header, *, settings: Settings | None = None) -> Store:
    """Makes an empty store.

    Args:
      where: a directory, new or empty, or a URL: file://, gs://, s3://.
      header: what will never change in it.
      settings: the method and its settings; by default the method that we recommend.

    Returns:
      The store.

    Raises:
      StoreError: something is there already, or it cannot be written.
    """
    url = str(where)
    for modality in header.dimensions:
        if not modality or "/" in modality:
            raise StoreError(f"{url}: {modality!r} cannot be the name of a modality")
    with told(url):
        root = open_root(where)
        former = root.read(POINTER).result()
        check_free(where)
        name, context = new_name(), new_context()
        kv = open_database(root, name, context)
        try:
            write_empty(kv, header, settings or Settings(), context)
            pointer = Pointer(name, 1 - newest_generation(root, name), 1)
            write_pointer(root, pointer, former=former.stamp.generation)
        except BaseException:
            delete_database(root, name)
            raise
        delete_others(root, name)
    return Store(url, root, pointer, header, kv, context)


def open_store(where: str | Path, *, encoders: Mapping[str, EncoderRecord] | None = None) -> Store:
    """Opens a store, to read its versions and to commit new ones.

    Args:
      where: as given to `create`.
      encoders: those that will embed what is written, checked against the store's.

    Returns:
      The store.

    Raises:
      StoreError: no store is there, it is damaged or of a later format, or it holds the embeddings
        of other encoders.
    """
    url = str(where)
    with told(url):
        root = open_root(where)
        pointer, _ = read_pointer(root, url)
        context = new_context()
        kv = open_database(root, pointer.database, context)
        content = kv.read("header").result()
        if content.state != "value":
            raise StoreError(f"{url}: damaged: the database {pointer.database} is not there")
        store = Store(url, root, pointer, unpack_header(content.value), kv, context)
    check_encoders(store, encoders or {})
    return store


def check_free(where: str | Path) -> None:
    """Refuses to make a store where something is.

    Args:
      where: as given to `create`.

    Raises:
      StoreError: there is a store, or there are other files; what a killed process left of a store
        that it was making does not count.
    """
    with told(str(where)):
        root = open_root(where)
        if root.read(POINTER).result().state == "value":
            raise StoreError(f"{where}: there is a store already")
        if any(not _DATABASE.match(key) for key in root.list().result()):
            raise StoreError(f"{where} holds other files; name a new directory for the store")


def is_store(where: str | Path) -> bool:
    """Whether a store is there.

    Args:
      where: as given to `create`.

    Raises:
      StoreError: it is a file, or may not be read.
    """
    with told(str(where)):
        return open_root(where).read(POINTER).result().state == "value"


def delete(store: Store) -> None:
    """Deletes a store and all its versions.

    Args:
      store: an open store.
    """
    with told(store.url):
        store.root.write(POINTER, None).result()
        delete_others(store.root, None)


def new_name() -> str:
    """A name for a database that no other has."""
    return f"db-{secrets.token_hex(8)}"


def delete_others(root: ts.KvStore, kept: str | None) -> None:
    """Deletes all databases but one: former ones, and what killed processes left behind.

    Args:
      root: the storage.
      kept: the one.
    """
    found = (_DATABASE.match(key) for key in root.list().result())
    for name in {match[1].decode() for match in found if match} - {kept}:
        delete_database(root, name)


def delete_database(root: ts.KvStore, database: str) -> None:
    """Deletes the files of a database.

    Args:
      root: the storage.
      database: its folder.
    """
    root.delete_range(ts.KvStore.KeyRange(f"{database}/", f"{database}0")).result()
    spec = root.spec().to_json()
    if spec["driver"] == "file":
        # Deleting files leaves their folders.
        shutil.rmtree(Path(spec["path"]) / database, ignore_errors=True)
        with contextlib.suppress(OSError):
            Path(spec["path"]).rmdir()


def row_count(store: Store) -> int:
    """How many rows a store has allotted, removed ones among them.

    Args:
      store: an open store.
    """
    with told(store.url):
        found = store.kv.read("rows").result()
        if found.state != "value":
            raise StoreError("its database is gone: it was compacted, open it anew")
        return int(found.value)


def check_encoders(store: Store, encoders: Mapping[str, EncoderRecord]) -> None:
    """Refuses encoders other than those a store was made with.

    Args:
      store: an open store.
      encoders: modality -> the encoder that shall embed for it.

    Raises:
      StoreError: a modality or an identity that is not the store's.
    """
    for modality, encoder in encoders.items():
        stored = store.header.encoders.get(modality)
        if stored is None:
            raise StoreError(f"{store.url} holds no modality {modality!r}")
        if stored.identity != encoder.identity:
            raise StoreError(
                f"{store.url} holds {modality} embeddings of {stored.source} ({stored.identity}), "
                f"not of {encoder.source} ({encoder.identity})"
            )


def write_empty(kv: ts.KvStore, header: Header, settings: Settings, context: ts.Context) -> None:
    """Gives a new database a header and arrays without rows, in one transaction.

    Args:
      kv: the database.
      header: of the store.
      settings: the method and its settings.
      context: that the database was opened with.
    """
    transaction = ts.Transaction(atomic=True)
    within = kv.with_transaction(transaction)
    within.write("header", pack_header(header)).result()
    within.write("settings", pack_settings(settings)).result()
    within.write("rows", "0").result()
    write_log(within, "create")
    raw = {"name": "bytes", "configuration": {"endian": "little"}}
    checked = {"name": "crc32c"}
    for modality, dimension in header.dimensions.items():
        piece = [header.chunk, *(1,) * (modality in header.several), dimension]
        metadata = _metadata(header.dtype, piece, [raw, checked])
        _open_array(within, array_key(modality), context, metadata)
    # Compressed, a mask is so small that it lies in the index itself.
    mask = _metadata("bool", [header.chunk], [{"name": "bytes"}, {"name": "zstd"}, checked])
    _open_array(within, "live", context, mask)
    transaction.commit_sync()


def write_log(kv: ts.KvStore, message: str, *, added: int = 0, removed: int = 0) -> None:
    """Says what a commit does.

    Args:
      kv: the database, within the transaction.
      message: in words.
      added: pairs added.
      removed: pairs removed.
    """
    said = {"message": message, "time": time.time(), "added": added, "removed": removed}
    kv.write("log", pack(said)).result()


def open_arrays(
    kv: ts.KvStore, header: Header, rows: int, context: ts.Context
) -> tuple[dict[str, ts.TensorStore], ts.TensorStore]:
    """The arrays of a database.

    Args:
      kv: the database, of one version or the newest, within a transaction or not.
      header: of the store.
      rows: how many they must hold.
      context: that the database was opened with.

    Returns:
      Modality -> [rows, d] or [rows, captions, d] embeddings, and the mask, [rows] bool.

    Raises:
      StoreError: they are not as the header says.
    """
    arrays = {m: _open_array(kv, array_key(m), context) for m in header.dimensions}
    for modality, array in arrays.items():
        # How many captions a pair may have grows with the pairs.
        captions = array.shape[1:2] if modality in header.several else ()
        width = (*captions, header.dimensions[modality])
        piece = (header.chunk, *(1 for _ in captions), width[-1])
        _check_array(modality, array, (rows, *width), header.dtype, piece)
    live = _open_array(kv, "live", context)
    _check_array("live", live, (rows,), "bool", (header.chunk,))
    return arrays, live


def _check_array(
    name: str, array: ts.TensorStore, shape: tuple[int, ...], dtype: str, chunk: tuple[int, ...]
) -> None:
    expected = shape, dtype, chunk
    found = array.shape, array.dtype.name, array.chunk_layout.read_chunk.shape
    if found != expected:
        raise StoreError(f"damaged: the array {name} is {found}, not {expected}")


def newest_generation(root: ts.KvStore, database: str) -> int:
    """The newest generation of a database.

    Args:
      root: the storage.
      database: the folder of the database.
    """
    manifest = ts.ocdbt.dump(root / f"{database}/").result()
    return int(manifest["versions"][-1]["generation_number"])


def open_root(where: str | Path) -> ts.KvStore:
    """The storage that a path or URL names.

    Args:
      where: as given to `create`.

    Raises:
      StoreError: it is a file.
    """
    if isinstance(where, Path) or "://" not in where:
        path = Path(where)
        if path.exists() and not path.is_dir():
            raise StoreError(f"{where} is a file, not a store")
        return ts.KvStore.open({"driver": "file", "path": f"{path.resolve()}/"}).result()
    return ts.KvStore.open(where.rstrip("/") + "/").result()


def _metadata(dtype: str, chunk: list[int], codecs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "shape": [0, *chunk[1:]],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "codecs": codecs,
    }


def _open_array(
    kv: ts.KvStore, name: str, context: ts.Context, metadata: dict[str, Any] | None = None
) -> ts.TensorStore:
    """Opens an array, or creates it with the given metadata."""
    spec = {"driver": "zarr3"} | ({"metadata": metadata} if metadata else {})
    kvstore = kv / f"{name}/"
    return ts.open(spec, kvstore=kvstore, context=context, create=bool(metadata)).result()
