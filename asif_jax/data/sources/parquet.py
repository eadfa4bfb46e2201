"""Pairs in Parquet files, as the Hugging Face hub lays sets out."""

import re
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from asif_jax.data.captions import CAPTION_KEYS, clean_captions, require_captions
from asif_jax.data.image_set import Example, ImageSet, file_state
from asif_jax.data.images import decode_image
from asif_jax.data.pairs import Skipped, leads_outside
from asif_jax.data.sources.parquet_rows import RowReader, arrow
from asif_jax.data.sources.shards import locate, set_of_shards, shard_files
from asif_jax.data.sources.source import Options, Source

_NAMES = re.compile(r"\.parquet$", re.IGNORECASE)

# The names of text columns that may hold the paths of images.
_PATH_KEYS = ("image", "file_name", "image_path", "path")


class _Shard(NamedTuple):
    """A Parquet file, its columns of image and captions, and where each row group ends."""

    path: Path
    state: str
    columns: tuple[str, str]
    ends: np.ndarray


def read_parquet(source: Path) -> ImageSet:
    """Reads the captioned images of Parquet files.

    Args:
      source: a Parquet file, or a folder that holds some, at any depth. The images are a column of
        structs with `bytes` and `path`, or a column of bytes; or else a column image, file_name,
        image_path or path of paths, which are relative to the folder of the file and may not lead
        out of it. The captions are a column captions, caption, texts or text, of strings or of
        lists of strings.

    Returns:
      The images, in the order of their rows, file after file, the files sorted by path. `skipped`
      names the files that cannot be used. A row that cannot be used is an error when it is read.

    Raises:
      ValueError: pyarrow is missing, there is no such source, or nothing in it is usable.
    """
    files = parquet_files(source)
    found = [_index(path) for path in files]
    shards = [item for item in found if isinstance(item, _Shard)]
    rows = RowReader()
    return set_of_shards(
        source,
        files,
        [int(shard.ends[-1]) for shard in shards],
        read=lambda number, row: _read(shards[number], row, rows),
        place=lambda number, row: _place(shards[number], row),
        skipped=[item for item in found if isinstance(item, Skipped)],
    )


def parquet_files(source: Path) -> list[Path]:
    """Lists the Parquet files that a path names.

    Args:
      source: a file, which is accepted whatever its name, or a folder, which is searched together
        with all folders below it.

    Returns:
      The files, sorted; none if the folder holds none.

    Raises:
      ValueError: there is no such file or folder.
    """
    return shard_files(source, _NAMES)


def _index(path: Path) -> _Shard | Skipped:
    pyarrow = arrow()
    state = file_state(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
    except PermissionError:
        return Skipped(path, "no permission to read it")
    except (OSError, ValueError, pyarrow.ArrowException):
        return Skipped(path, "not a Parquet file, or cut short")
    columns = _columns(schema)
    if isinstance(columns, str):
        return Skipped(path, columns)
    groups = range(metadata.num_row_groups)
    sizes = [metadata.row_group(group).num_rows for group in groups] or [0]
    return _Shard(path, state, columns, np.cumsum(sizes))


def _columns(schema: Any) -> tuple[str, str] | str:
    """The columns of the image and of the captions, or why they are not clear."""
    images, captions = _image_columns(schema), _caption_columns(schema)
    if not images or not captions:
        return f"no column of {'images' if captions else 'captions'} among {schema.names}"
    if len(images) > 1 and "image" not in images:
        return f"leaves open which column is the image: {images}"
    return "image" if "image" in images else images[0], captions[0]


def _image_columns(schema: Any) -> list[str]:
    types = arrow().types
    structs = [field.name for field in schema if _is_image_struct(field.type)]
    binary = [
        field.name
        for field in schema
        if types.is_binary(field.type)
        or types.is_large_binary(field.type)
        or types.is_binary_view(field.type)
    ]
    paths = [key for key in _PATH_KEYS if key in schema.names and _is_text(schema.field(key).type)]
    return structs or binary or paths[:1]


def _caption_columns(schema: Any) -> list[str]:
    found = [(key, schema.field(key).type) for key in CAPTION_KEYS if key in schema.names]
    return [key for key, kind in found if _is_text(kind) or _is_text_list(kind)]


def _is_image_struct(kind: Any) -> bool:
    return arrow().types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _is_text_list(kind: Any) -> bool:
    types = arrow().types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and _is_text(kind.value_type)


def _is_text(kind: Any) -> bool:
    types = arrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _place(shard: _Shard, row: int) -> Path:
    return Path(f"{shard.path}:{row}")


def _read(shard: _Shard, row: int, rows: RowReader) -> Example:
    place = _place(shard, row)
    group, inside = locate(shard.ends, row)
    try:
        image, caption = rows.read(shard.path, shard.state, shard.columns, group, inside)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    captions = require_captions(_captions(caption), place)
    return Example(_decode(image, shard.path.parent, place), captions=captions)


def _captions(value: Any) -> tuple[str, ...] | str:
    try:
        return clean_captions(value.as_py())
    except UnicodeDecodeError:
        return "caption is not UTF-8"


def _decode(value: Any, folder: Path, place: Path) -> Image.Image:
    try:
        content = _content(value)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: path is not UTF-8") from error
    if isinstance(content, bytes):
        return decode_image(BytesIO(content), str(place))
    if not content or not isinstance(content, str):
        raise ValueError(f"{place}: no image")
    if leads_outside(content):
        raise ValueError(f"{place}: path leads outside the folder: {content}")
    return decode_image(folder / content, f"{place}: {content}")


def _content(value: Any) -> object:
    """What a column holds of an image: bytes, the path of a file, or a struct of both."""
    if not value.is_valid or not arrow().types.is_struct(value.type):
        return value.as_py()
    content = value["bytes"].as_py()
    # Where there are bytes, the path only says where they came from.
    return value["path"].as_py() if content is None and "path" in value else content


def _matches(source: str, _: Options) -> bool:
    path = Path(source)
    return bool(parquet_files(path)) if path.is_dir() else _NAMES.search(path.name) is not None


SOURCE = Source(
    "set of Parquet files",
    matches=_matches,
    read=lambda source, _: read_parquet(Path(source)),
)
