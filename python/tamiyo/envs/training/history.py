"""What has been measured since the episode began, as the per-layer aggregates of the Rust core.

An episode has fewer readings than the collector's window of 100, so that running sums are the same
as aggregates over the window.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.contracts.signals import MEASUREMENTS
from tamiyo.envs.training.measurements import Reading
from tamiyo.envs.training.medians import row_median
from tamiyo.graph.scales import quotient

__all__ = ["LayerHistory", "ReportHistory"]

Floats: TypeAlias = npt.NDArray[np.float64]

START = 10
"""Measured activation variances that make up a layer's start (`Summary` in the core)."""
BLOCK, BLOCKS = 16, 16
"""Losses in a block, and blocks in the slow level (`tamiyo.host.watch.LossHistory`)."""


class LayerHistory:
    """Running sums over the readings of H hosts with N nodes.

    Times are optimiser steps: the columns made from them do not depend on the unit.
    """

    def __init__(self, hosts: int, nodes: int) -> None:
        shape = (hosts, nodes)
        self._sums = {name: np.zeros(shape) for name in MEASUREMENTS}
        self._counts = {name: np.zeros(shape) for name in MEASUREMENTS}
        self._last = {name: np.full(shape, np.nan) for name in MEASUREMENTS}
        self._start_sum, self._start_count = np.zeros(shape), np.zeros(shape)
        self._times = np.zeros((0,))
        self._health = np.zeros((0, *shape))
        self._errors = np.zeros(shape)

    @property
    def readings(self) -> int:
        """How many there have been."""
        return len(self._times)

    def add(self, step: int, reading: Reading) -> None:
        """Take what was measured at an optimiser step."""
        for name in MEASUREMENTS:
            values = reading.get(name)
            if values is None:
                continue
            # Signals are single precision.
            values = values.astype(np.float32).astype(np.float64)
            known = ~np.isnan(values)
            self._sums[name] += np.where(known, values, 0.0)
            self._counts[name] += known
            self._last[name] = np.where(known, values, self._last[name])
        variance = reading["activation_variance"]
        early = ~np.isnan(variance) & (self._start_count < START)
        self._start_sum += np.where(early, variance, 0.0)
        self._start_count += early
        self._times = np.append(self._times, float(step))
        self._health = np.concatenate([self._health, reading["health_score"][None]])
        self._errors += np.nan_to_num(reading["error_count"])

    def aggregates(self) -> dict[str, Floats]:
        """Columns [H, N] by the core's names, as far as graphs need them."""
        columns: dict[str, Floats] = {}
        for name in MEASUREMENTS:
            columns[f"{name}_mean"] = quotient(self._sums[name], self._counts[name])
            columns[f"{name}_last"] = self._last[name]
        readings = max(self.readings, 1)
        columns["activation_variance_start"] = quotient(self._start_sum, self._start_count)
        measured = np.sum(list(self._counts.values()), axis=0)
        columns["measured_share"] = measured / readings / len(MEASUREMENTS)
        columns["error_rate"] = self._errors / readings
        slope, stability = self._regression()
        span = self._times[-1] - self._times[0] if self.readings else 0.0
        return columns | {"health_trend": slope * span, "stability": stability}

    def _regression(self) -> tuple[Floats, Floats]:
        """Least-squares slope of health, and 1 - 2 standard deviations of it."""
        known = ~np.isnan(self._health)
        count = known.sum(axis=0)
        time = np.where(known, self._times[:, None, None], 0.0)
        health = np.where(known, self._health, 0.0)
        mean_time, mean_health = (
            quotient(time.sum(axis=0), count),
            quotient(health.sum(axis=0), count),
        )
        late = np.where(known, time - mean_time, 0.0)
        high = np.where(known, health - mean_health, 0.0)
        slope = quotient((late * high).sum(axis=0), (late * late).sum(axis=0))
        deviation = np.sqrt(quotient((high * high).sum(axis=0), count))
        stability = np.where(count > 1, np.clip(1.0 - 2.0 * deviation, 0.0, 1.0), np.nan)
        return slope, stability


@dataclass
class ReportHistory:
    """The model-level reports of H hosts, one per decision, each [H, T] or a list of [H]."""

    hosts: int
    loss: list[Floats] = field(default_factory=list)
    """Median training loss since the last report; NaN when none was finite."""
    nonfinite: list[Floats] = field(default_factory=list)
    level: list[Floats] = field(default_factory=list)
    """Slow robust level of the training loss."""
    held_out_loss: list[Floats] = field(default_factory=list)
    accuracy: list[Floats] = field(default_factory=list)
    learning_rate: list[Floats] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._block = np.full((self.hosts, BLOCK), np.nan)
        self._filled = np.zeros(self.hosts, np.int64)
        self._blocks = np.full((self.hosts, BLOCKS), np.nan)
        self._next = np.zeros(self.hosts, np.int64)

    def add(
        self, losses: Floats, held_out_loss: Floats, accuracy: Floats, learning_rate: Floats
    ) -> None:
        """Take the losses [H, k] since the last report, and the present state [H]."""
        finite = np.isfinite(losses)
        for column in range(losses.shape[1]):
            self._advance(losses[:, column], finite[:, column])
        self.loss.append(row_median(np.where(finite, losses, np.nan)))
        self.nonfinite.append((~finite).sum(axis=1).astype(np.float64))
        self.level.append(row_median(self._blocks))
        self.held_out_loss.append(held_out_loss)
        self.accuracy.append(accuracy)
        self.learning_rate.append(learning_rate)

    def _advance(self, loss: Floats, finite: npt.NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(finite)
        self._block[rows, self._filled[rows]] = loss[rows]
        self._filled[rows] += 1
        full = np.flatnonzero(self._filled == BLOCK)
        if len(full):
            self._blocks[full, self._next[full] % BLOCKS] = np.median(self._block[full], axis=1)
            self._next[full] += 1
            self._filled[full] = 0
