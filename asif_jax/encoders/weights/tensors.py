"""Named tensors that are read when asked for, one at a time."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a checkpoint. Looking one up reads it; nothing read is kept.

    Attributes:
      readers: maps the name of a tensor to the function that reads it.

    Example:
      >>> tensors = Tensors({"bert.bias": lambda: np.zeros(3)})
      >>> tensors["bert.bias"].shape, list(tensors.without_prefix("bert."))
      ((3,), ['bias'])
    """

    readers: Mapping[str, Callable[[], np.ndarray]]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self.readers

    def __iter__(self) -> Iterator[str]:
        return iter(self.readers)

    def __len__(self) -> int:
        return len(self.readers)

    def without_prefix(self, prefix: str) -> "Tensors":
        """The same tensors, with a prefix dropped from the names that have it.

        Args:
          prefix: for example "bert.", which a BERT has when it was saved with a head.

        Returns:
          The tensors.
        """
        return Tensors({name.removeprefix(prefix): read for name, read in self.readers.items()})
