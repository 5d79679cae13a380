"""Health signals in columns, and one signal as a record.

The field table (names, types, units, ranges) comes from the Rust core, so that there is one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import IntFlag
from typing import Any, Self, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from tamiyo import _core
from tamiyo.contracts.metrics import PerformanceMetrics
from tamiyo.contracts.topology import ModelTopology

__all__ = ["FIELDS", "MEASUREMENTS", "Columns", "Flag", "HealthSignal", "SignalBatch"]

Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]

FIELDS = _core.signal_fields()
"""The field table: one row per column of a batch, in wire order."""

MEASUREMENTS = tuple(row.name for row in FIELDS if row.presence == "not_measured")
"""Names of the fields that may be NaN, which means not measured."""


class Flag(IntFlag):
    """Bits of the `flags` column."""

    READY_FOR_TRANSITION = 1
    NONFINITE_ACTIVATION = 2
    NONFINITE_GRADIENT = 4
    NONFINITE_WEIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSignal:
    """One reading of one layer (or of one seed in it). NaN means not measured.

    Units and ranges: the field table (`FIELDS`).
    """

    layer_id: int
    epoch: int
    step: int
    timestamp: float
    seed_id: int = 0
    chunk_id: int = 0
    health_score: float = np.nan
    activation_variance: float = np.nan
    dead_neuron_ratio: float = np.nan
    avg_correlation: float = np.nan
    gradient_norm: float = np.nan
    weight_norm: float = np.nan
    update_ratio: float = np.nan
    saturation: float = np.nan
    execution_latency: float = np.nan
    cache_hit_rate: float = np.nan
    error_count: int = 0
    active_seeds: int = 0
    total_seeds: int = 0
    flags: int = 0

    @property
    def is_ready_for_transition(self) -> bool:
        """Whether the seed asks to move to its next stage."""
        return bool(self.flags & Flag.READY_FOR_TRANSITION)

    @property
    def is_nonfinite(self) -> bool:
        """Whether an activation, gradient or weight was NaN or infinite."""
        return bool(self.flags & ~Flag.READY_FOR_TRANSITION)


@dataclass(frozen=True, slots=True)
class SignalBatch:
    """Signals in columns: `batch["health_score"]` is an array, `batch[3]` a `HealthSignal`,
    `batch[10:20]` and `batch[mask]` are batches, iterating gives `HealthSignal`s.

    A batch that comes from a collector also carries what the graph needs: `layers`, the per-layer
    aggregates over *every* valid signal (the signals themselves are thinned, so means over them
    would be biased), the run's announced `topology` and its latest `metrics`.
    """  # noqa: D205

    columns: Columns
    layers: Columns | None = None
    topology: ModelTopology | None = None
    metrics: tuple[PerformanceMetrics, ...] = field(default=())

    @classmethod
    def from_signals(cls, signals: Iterable[HealthSignal]) -> Self:
        """Columns from records, in order; an empty iterable gives an empty batch."""
        rows = list(signals)
        return cls(
            {
                row.name: np.array([getattr(signal, row.name) for signal in rows], row.dtype)
                for row in FIELDS
            }
        )

    def __len__(self) -> int:
        return len(self.columns["layer_id"])

    @overload
    def __getitem__(self, key: str) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, key: int) -> HealthSignal: ...
    @overload
    def __getitem__(self, key: slice | npt.NDArray[Any]) -> Self: ...
    def __getitem__(
        self, key: str | int | slice | npt.NDArray[Any]
    ) -> "npt.NDArray[Any] | HealthSignal | SignalBatch":
        if isinstance(key, str):
            return self.columns[key]
        if isinstance(key, int | np.integer):
            return HealthSignal(
                **{
                    field.name: self.columns[field.name][key].item()
                    for field in fields(HealthSignal)
                }
            )
        columns = {name: column[key] for name, column in self.columns.items()}
        return type(self)(columns, self.layers, self.topology, self.metrics)

    def __iter__(self) -> Iterator[HealthSignal]:
        return (self[index] for index in range(len(self)))
