"""What the reward system is told about one decision interval of each of H runs."""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Mask", "Measurements"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_SHARES = ("quality", "twin_quality", "unstable", "twin_unstable")


@dataclass(frozen=True, eq=False)
class Measurements:
    """One value per run [H], as anything that `numpy.asarray` takes; NaN is *not measured*.

    The *twin* is the same run left alone: in simulation a second run that shares the first one's
    initial weights and data order, in a live run a forecast. A measurement speaks for all
    intervals since the one before it.

    Attributes:
        quality: Held-out quality at the interval's end, in [0, 1] (`QualityScale`).
        twin_quality: That of the twin at the same step.
        compute: Compute of the interval's steps over that of the twin's, 1 is the same.
        memory: Memory at the interval's end over the twin's, 1 is the same.
        unstable: Share of the interval's steps that were unstable (non-finite or in alarm).
        twin_unstable: That of the twin.
        rollbacks: Adaptations taken back or failed within the interval. A count, so never NaN.
        twin_error: Standard error of `twin_quality`; 0 for a twin that was really trained.

    Raises:
        ValueError: shapes that differ, infinite values, or values out of range.
    """

    quality: Array
    twin_quality: Array
    compute: Array
    memory: Array
    unstable: Array
    twin_unstable: Array
    rollbacks: Array
    twin_error: Array

    def __post_init__(self) -> None:
        shape = np.shape(self.quality)
        if len(shape) != 1:
            raise ValueError(f"quality must have the shape [H], got {shape}")
        for field in fields(self):
            values = np.asarray(getattr(self, field.name), dtype=np.float64)
            if values.shape != shape:
                raise ValueError(f"{field.name} has the shape {values.shape}, quality {shape}")
            if np.any(np.isinf(values)) or np.any(values < 0):
                raise ValueError(f"{field.name} must be finite and not negative, or NaN")
            if field.name in _SHARES and np.any(values > 1):
                raise ValueError(f"{field.name} must be in [0, 1]")
            object.__setattr__(self, field.name, values)
        if np.any(np.isnan(self.rollbacks)):
            raise ValueError("rollbacks are counted, they cannot be missing")

    @classmethod
    def of(
        cls,
        quality: npt.ArrayLike,
        twin_quality: npt.ArrayLike,
        *,
        compute: npt.ArrayLike = np.nan,
        memory: npt.ArrayLike = np.nan,
        unstable: npt.ArrayLike = np.nan,
        twin_unstable: npt.ArrayLike = np.nan,
        rollbacks: npt.ArrayLike = 0.0,
        twin_error: npt.ArrayLike = 0.0,
    ) -> "Measurements":
        """The same, with what is left out missing and single values broadcast to all runs."""
        shape = np.shape(quality)

        def spread(values: npt.ArrayLike) -> Array:
            return np.broadcast_to(np.asarray(values, dtype=np.float64), shape)

        return cls(
            spread(quality),
            spread(twin_quality),
            spread(compute),
            spread(memory),
            spread(unstable),
            spread(twin_unstable),
            spread(rollbacks),
            spread(twin_error),
        )

    def __len__(self) -> int:
        return len(self.quality)
