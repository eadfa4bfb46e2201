"""From what the command line says of methods and encoders to methods and records of encoders."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asif_jax.methods import Method
    from asif_jax.store import EncoderRecord, Settings

# What a new model uses if k or p is named and no method: it changes when stores keep their method.
_DEFAULT_METHOD = "paper"

_PACKAGES = ("efficientnet-lite0", "efficientnet-lite2", "all-MiniLM-L6-v2")


def chosen_method(
    method: str | None, k: int | None, p: float | None, *, held: "Method | None" = None
) -> "Method | None":
    """The method that is asked for.

    Args:
      method: its name in `methods.METHODS`.
      k: similarities kept.
      p: exponent.
      held: the method of the model, whose settings hold where no method is named.

    Returns:
      The method; None if nothing is asked for.

    Raises:
      ValueError: the method takes no k or no p.
    """
    from asif_jax import methods

    given = {name: value for name, value in (("k", k), ("p", p)) if value is not None}
    if method is None and not given:
        return None
    if method is None and held is not None:
        name, settings = held.name, {**held.settings, **given}
    else:
        name, settings = method or _DEFAULT_METHOD, given
    # The best takes no settings: it is another by its own name.
    name = methods.best().name if name == "best" else name
    _check_taken(name, given)
    return methods.named(name, settings)


def _check_taken(name: str, given: Mapping[str, Any]) -> None:
    from asif_jax import methods

    make = methods.METHODS.get(name)
    taken = inspect.signature(make).parameters if make else {}
    if refused := [setting for setting in given if setting not in taken]:
        raise ValueError(f"the method {name} takes no {' and no '.join(refused)}")


def method_of(settings: "Settings") -> "Method":
    """The method of a store, which so far keeps the paper's k and p.

    Args:
      settings: of the store.

    Returns:
      The method.
    """
    from asif_jax import methods

    given = {name: value for name, value in settings._asdict().items() if value is not None}
    return methods.named("paper", given)


def settings_of(method: "Method | None") -> "Settings":
    """What a store keeps of a method, which so far is the paper's k and p.

    Args:
      method: from `chosen_method`.

    Returns:
      The settings.

    Raises:
      ValueError: another method.
    """
    from asif_jax.store import Settings

    if method is None:
        return Settings()
    if method.name != "paper":
        raise ValueError(f"a model cannot be used by the method {method.name} yet")
    return Settings(method.settings.get("k"), method.settings.get("p"))


def stored_source(source: str) -> str:
    """What a store keeps of the source of an encoder: of a path, where it lies from everywhere.

    Args:
      source: a name or a path.

    Returns:
      A name, or an absolute path.
    """
    # A package's name holds even where a folder is called the same.
    on_disk = source not in _PACKAGES and Path(source).exists()
    return str(Path(source).absolute()) if on_disk else source


def record_by_name(name: str) -> "EncoderRecord":
    """The record of an encoder that made embeddings elsewhere, and that is known by name alone.

    Args:
      name: what it is called, such as open_clip:ViT-B-32.

    Returns:
      The record, whose identity is "name" and the name.
    """
    from asif_jax.store import EncoderRecord

    return EncoderRecord(name, f"name {name}")


def check_loadable(where: object, records: "Mapping[str, EncoderRecord]", *modalities: str) -> None:
    """Refuses to embed for a model whose encoders are known by name alone.

    Args:
      where: the model.
      records: modality -> the model's encoder.
      *modalities: those to embed.

    Raises:
      ValueError: a modality that the model does not hold, or whose encoder cannot be loaded.
    """
    for modality in modalities:
        record = records.get(modality)
        if record is None:
            raise ValueError(f"{where} holds no {modality}: it holds {', '.join(records)}")
        if record == record_by_name(record.source):
            raise ValueError(
                f"the {modality} encoder of {where}, {record.source}, is known by name alone and "
                "cannot be loaded here: give queries as arrays, in a program of yours"
            )
