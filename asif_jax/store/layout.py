"""What lies where in a store, and the two records that say so.

A small file, `asif-store.json`, names a database: the *pointer*. The database holds a zarr array of
embeddings for every modality, [rows, d]; which rows are live; blocks of what the pairs were made
of; and a few small keys, among them the *header*.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorstore as ts

from asif_jax.methods.calibration import Calibration
from asif_jax.model import EncoderRecord
from asif_jax.store.failures import CHANGED, StoreError
from asif_jax.store.records import pack, unpack

FORMAT = "asif-jax store"
_FORMAT_VERSION = 1
POINTER = "asif-store.json"

# Nothing is compressed, so that what a store holds can be searched for, and is read as fast as the
# disk reads. Small nodes make small commits. Small values lie in the nodes, which have checksums.
_CONFIG = {
    "compression": None,
    "max_decoded_node_bytes": 1 << 16,
    "max_inline_value_bytes": 1 << 12,
}
_CACHED_BYTES = 1 << 26

# What a database keeps beside the embeddings, by the first part of the key.
_INTERNAL = frozenset(
    ("header", "settings", "rows", "live", "log", "pairs", "jobs", "names", "sums", "compacted")
)


class Header(NamedTuple):
    """What never changes in a store.

    Attributes:
      encoders: maps each modality to the encoder of its embeddings.
      dimensions: maps each modality to the dimension of its embeddings.
      dtype: is "float32" or "bfloat16", for all embeddings.
      chunk: counts the rows that are stored as one piece.
      several: names the modalities in which a pair may have more than one embedding, such as the
        captions of an image; their arrays are [rows, captions, d], all others [rows, d].
    """

    encoders: Mapping[str, EncoderRecord]
    dimensions: Mapping[str, int]
    dtype: str = "float32"
    chunk: int = 256
    several: tuple[str, ...] = ()


class Pointer(NamedTuple):
    """The content of `asif-store.json`.

    Attributes:
      database: is the folder of the database.
      offset: is what to add to a generation of the database to get the version.
      oldest: is the first version that can be opened.
    """

    database: str
    offset: int
    oldest: int


class Settings(NamedTuple):
    """How the pairs of a store become scores.

    Attributes:
      method: names the method, one that `asif_jax.methods.named` knows.
      settings: holds those of the method; what is left out follows a rule of the number of pairs.
      calibration: turns the method's scores into probabilities; None if none was fitted.
    """

    method: str = "two_cosines"
    settings: Mapping[str, Any] = {}
    calibration: Calibration | None = None


def unpack_settings(content: bytes) -> Settings:
    """The settings from what is kept; stores of the first release kept k and p alone.

    Args:
      content: a packed dictionary, or the list [k, p].

    Returns:
      The settings; k and p alone mean the paper's method.
    """
    fields = unpack(content)
    if isinstance(fields, list):
        given = {name: value for name, value in zip("kp", fields, strict=True) if value is not None}
        return Settings("paper", given)
    calibration = fields["calibration"]
    return Settings(**(fields | {"calibration": calibration and Calibration(*calibration)}))


def open_database(
    root: ts.KvStore, database: str, context: ts.Context, *, generation: int | None = None
) -> ts.KvStore:
    """Opens a database, to write to unless a generation is given.

    Args:
      root: the storage.
      database: its folder.
      context: from `new_context`; what shall share a transaction must share it.
      generation: which state of it; by default the newest, always.

    Returns:
      The database.
    """
    base = (root / f"{database}/").spec().to_json()
    spec = {"driver": "ocdbt", "base": base, "config": _CONFIG}
    spec |= {} if generation is None else {"version": generation}
    return ts.KvStore.open(spec, context=context).result()


def new_context() -> ts.Context:
    """A small cache for the index of a database."""
    return ts.Context({"cache_pool": {"total_bytes_limit": _CACHED_BYTES}})


def array_key(modality: str) -> str:
    """The key of the embeddings of a modality: its name, unless something else has that key.

    Args:
      modality: its name.

    Returns:
      The key.

    Example:
      >>> array_key("speech"), array_key("live")
      ('speech', 'embeddings of live')
    """
    return f"embeddings of {modality}" if modality in _INTERNAL else modality


def block_key(block: int) -> str:
    """The key of what the rows of a chunk were made of."""
    return f"pairs/{block:08x}"


def pack_header(header: Header) -> bytes:
    """The header as it is kept."""
    encoders = {modality: record._asdict() for modality, record in header.encoders.items()}
    return pack(header._asdict() | {"encoders": encoders})


def pack_settings(settings: Settings) -> bytes:
    """The settings as they are kept."""
    return pack(settings._asdict() | {"settings": dict(settings.settings)})


def unpack_header(content: bytes) -> Header:
    """The header from what is kept."""
    fields = unpack(content)
    encoders = {modality: EncoderRecord(**r) for modality, r in fields["encoders"].items()}
    several = tuple(fields.get("several", ()))
    return Header(**(fields | {"encoders": encoders, "several": several}))


def read_pointer(root: ts.KvStore, url: str) -> tuple[Pointer, bytes]:
    """Reads which database is the store's.

    Args:
      root: the storage.
      url: what to call it.

    Returns:
      The pointer, and what TensorStore calls its generation, for `write_pointer`.

    Raises:
      StoreError: none is there, or it is damaged or of a later format.
    """
    found = root.read(POINTER).result()
    if found.state != "value":
        raise StoreError(f"{url} is not a store: it has no {POINTER}")
    try:
        content = json.loads(found.value)
        form = content["format"], content["format_version"]
        pointer = Pointer(content["database"], content["offset"], content["oldest"])
        intact = content["checksum"] == _checksum(pointer)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{url}: {POINTER} is damaged or another program's: {error!r}") from error
    if form != (FORMAT, _FORMAT_VERSION):
        raise StoreError(f"{url} is an {form[0]} of version {form[1]}, this is {_FORMAT_VERSION}")
    if not intact:
        raise StoreError(f"{url}: {POINTER} is damaged: its checksum does not match")
    return pointer, found.stamp.generation


def write_pointer(root: ts.KvStore, pointer: Pointer, *, former: bytes) -> None:
    """Makes a database the store's, unless another writer did so first.

    Args:
      root: the storage of the store.
      pointer: which database.
      former: the generation of what the pointer was read from.

    Raises:
      StoreError: the pointer is no longer what it was.
    """
    content = {"format": FORMAT, "format_version": _FORMAT_VERSION} | pointer._asdict()
    text = json.dumps(content | {"checksum": _checksum(pointer)}, indent=1)
    if not root.write(POINTER, text, if_equal=former).result().generation:
        raise StoreError(CHANGED)


def _checksum(pointer: Pointer) -> str:
    return f"{zlib.crc32(json.dumps(pointer).encode()):08x}"
