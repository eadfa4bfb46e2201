"""A store for what is about to be embedded or imported: its encoders, its method, its pairs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from asif_jax.cli.choices import chosen_method, method_of, settings_of
from asif_jax.cli.options import MethodOptions

if TYPE_CHECKING:
    from asif_jax.encoders import Encoder
    from asif_jax.methods import Method
    from asif_jax.store import EncoderRecord, Store


def load_all(sources: Mapping[str, str]) -> "dict[str, Encoder]":
    """Loads encoders.

    Args:
      sources: modality -> name or path.

    Returns:
      modality -> encoder.

    Raises:
      ValueError: see `encoders.load`.
    """
    from asif_jax import encoders

    return {m: encoders.load(source, modality=m) for m, source in sources.items()}


def records_of(
    sources: Mapping[str, str], loaded: "Mapping[str, Encoder]"
) -> "dict[str, EncoderRecord]":
    """What a store keeps of encoders.

    Args:
      sources: modality -> name or path.
      loaded: modality -> encoder.

    Returns:
      modality -> record; a path is absolute in it, so that the model serves from everywhere.
    """
    from asif_jax import encoders
    from asif_jax.store import EncoderRecord

    return {
        modality: EncoderRecord(encoders.source_of(sources[modality]), encoder.identity)
        for modality, encoder in loaded.items()
    }


def checked_method(
    where: str, options: MethodOptions, dtype: str | None, *, more: int
) -> "Method | None":
    """The method that is asked for, checked against a store before anything is loaded.

    Args:
      where: the store, which may not be there yet.
      options: what is asked for.
      dtype: of the embeddings, if one is asked for.
      more: how many pairs may come to it.

    Returns:
      The method; None if nothing is asked for.

    Raises:
      ValueError: a method without such settings, a k beyond the pairs, or a store of another dtype.
    """
    from asif_jax import store
    from asif_jax.jobs.embedding.into_store import check_k

    held, pairs = None, more
    if store.is_store(where):
        opened = store.open_store(where)
        if dtype not in (None, opened.header.dtype):
            raise ValueError(f"{where} holds {opened.header.dtype}, not {dtype}")
        found = store.snapshot(opened)
        held, pairs = method_of(found.settings), more + int(found.live.sum())
    method = chosen_method(options.method, options.k, options.p, held=held)
    check_k(options.k, pairs)
    return method


def open_for(
    where: str,
    records: "Mapping[str, EncoderRecord]",
    dimensions: Mapping[str, int],
    *,
    several: tuple[str, ...] = (),
    dtype: str | None,
    method: "Method | None",
) -> "Store":
    """The store to write to, which is made if none is there, used by the method that is asked for.

    Args:
      where: a directory or URL.
      records: modality -> the encoder of what will be written.
      dimensions: modality -> d, of a new store.
      several: modalities of a new store in which a pair may have more than one embedding.
      dtype: of a new store; float32 by default.
      method: from `checked_method`.

    Returns:
      The open store.

    Raises:
      StoreError: it holds the embeddings of other encoders, or cannot be written.
    """
    import jax

    from asif_jax import store
    from asif_jax.jobs.embedding.into_store import wait_for_all

    leads = jax.process_index() == 0
    if leads and not store.is_store(where):
        header = store.Header(records, dict(dimensions), dtype or "float32", several=several)
        store.create(where, header, settings=settings_of(method))
    wait_for_all()
    opened = store.open_store(where, encoders=records)
    held = store.snapshot(opened).settings._replace(calibration=None)
    if leads and method is not None and settings_of(method) != held:
        store.change_settings(opened, settings_of(method))
    return opened
