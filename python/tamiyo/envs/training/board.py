"""Arrays with a row for every run, which processes may share."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Board", "Field", "Fields"]

Field: TypeAlias = tuple[tuple[int, ...], npt.DTypeLike]
"""Shape and type of one run's share."""
Fields: TypeAlias = Mapping[str, Field]

ALIGNMENT = 64


@dataclass(frozen=True, eq=False)
class Board:
    """Named arrays [B, ...] in one block of memory.

    Args:
        fields: What there is for each run.
        runs: B.
        memory: At least `Board.size` bytes.
    """

    fields: Fields
    runs: int
    memory: Any
    arrays: dict[str, npt.NDArray[Any]] = attribute(init=False)

    def __post_init__(self) -> None:
        offset, arrays = 0, {}
        for name, (shape, dtype) in self.fields.items():
            count = self.runs * prod(shape)
            flat = np.frombuffer(self.memory, dtype, count, offset)
            arrays[name] = flat.reshape(self.runs, *shape)
            offset += _aligned(flat.nbytes)
        object.__setattr__(self, "arrays", arrays)

    @staticmethod
    def size(fields: Fields, runs: int) -> int:
        """Bytes that the arrays need."""
        sizes = (prod(shape) * np.dtype(dtype).itemsize for shape, dtype in fields.values())
        return sum(_aligned(runs * size) for size in sizes)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.arrays[name]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
