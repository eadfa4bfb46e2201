"""From what the command line says of methods and encoders to methods and records of encoders."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asif_jax.methods import Method
    from asif_jax.store import EncoderRecord, Settings


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
        name, settings = method or "best", given
    # The best takes no settings: it is another by its own name.
    name = methods.best().name if name == "best" else name
    check_taken(name, **given)
    return methods.named(name, settings)


def check_taken(name: str, **given: Any) -> None:
    """Refuses settings for a method that does not have them.

    Args:
      name: of the method.
      **given: setting -> value; those that are empty do not count.

    Raises:
      ValueError: the method has no such setting.
    """
    from asif_jax import methods

    make = methods.METHODS.get(methods.best().name if name == "best" else name)
    taken = inspect.signature(make).parameters if make else {}
    if refused := [setting for setting, value in given.items() if value and setting not in taken]:
        raise ValueError(f"the method {name} takes no {' and no '.join(refused)}")


def method_of(settings: "Settings") -> "Method":
    """The method of a store.

    Args:
      settings: of the store.

    Returns:
      The method.
    """
    from asif_jax import methods

    return methods.named(settings.method, settings.settings)


def settings_of(method: "Method | None") -> "Settings":
    """What a store keeps of a method.

    Args:
      method: from `chosen_method`; None for the method that we recommend.

    Returns:
      The settings, without a calibration.
    """
    from asif_jax import methods
    from asif_jax.store import Settings

    method = methods.best() if method is None else method
    return Settings(method.name, dict(method.settings))


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
