"""What was measured of every layer lately, as the per-layer aggregates of the Rust core."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.contracts.signals import MEASUREMENTS
from tamiyo.envs.training.measurements import Reading
from tamiyo.graph.scales import quotient

__all__ = ["LayerHistory"]

Floats: TypeAlias = npt.NDArray[np.float64]

START = 10
"""Measured activation variances that make up a layer's start (`Summary` in the core)."""
AVERAGED = ("health_score", "gradient_norm")
"""Measurements of which anybody reads the mean, besides the last value."""


class LayerHistory:
    """The newest readings of H hosts with N nodes.

    Times are optimiser steps: the columns made from them do not depend on the unit.

    Args:
        hosts: H.
        nodes: N.
        window: Readings that are kept (`window` of the live collector).
    """

    def __init__(self, hosts: int, nodes: int, window: int) -> None:
        shape = (hosts, nodes)
        self._window = window
        self._last = {name: np.full(shape, np.nan) for name in MEASUREMENTS}
        self._start_sum, self._start_count = np.zeros(shape), np.zeros(shape)
        self._times = np.zeros((0,))
        self._kept = {name: np.zeros((0, *shape)) for name in (*AVERAGED, "measured", "errors")}

    @property
    def readings(self) -> int:
        """How many are kept."""
        return len(self._times)

    def add(self, step: int, reading: Reading) -> None:
        """Take what was measured at an optimiser step."""
        measured = np.zeros_like(self._start_sum)
        for name in MEASUREMENTS:
            values = reading.get(name)
            if values is None:
                continue
            # Signals are single precision.
            values = values.astype(np.float32).astype(np.float64)
            known = ~np.isnan(values)
            measured += known
            self._last[name] = np.where(known, values, self._last[name])
            if name in AVERAGED:
                self._keep(name, values)
        variance = reading["activation_variance"]
        early = ~np.isnan(variance) & (self._start_count < START)
        self._start_sum += np.where(early, variance, 0.0)
        self._start_count += early
        self._keep("measured", measured)
        self._keep("errors", np.nan_to_num(reading["error_count"]))
        self._times = np.append(self._times, float(step))[-self._window :]

    def _keep(self, name: str, values: Floats) -> None:
        self._kept[name] = np.concatenate([self._kept[name], values[None]])[-self._window :]

    def aggregates(self) -> dict[str, Floats]:
        """Columns [H, N] by the core's names, as far as anybody reads them."""
        columns = {f"{name}_last": values for name, values in self._last.items()}
        for name in AVERAGED:
            known = ~np.isnan(self._kept[name])
            total = np.where(known, self._kept[name], 0.0).sum(axis=0)
            columns[f"{name}_mean"] = quotient(total, known.sum(axis=0))
        readings = max(self.readings, 1)
        columns["activation_variance_start"] = quotient(self._start_sum, self._start_count)
        columns["measured_share"] = (
            self._kept["measured"].sum(axis=0) / readings / len(MEASUREMENTS)
        )
        columns["error_rate"] = self._kept["errors"].sum(axis=0) / readings
        columns["error_count_last"] = self._kept["errors"][-1:].sum(axis=0)
        slope, stability = self._regression()
        span = self._times[-1] - self._times[0] if self.readings else 0.0
        return columns | {"health_trend": slope * span, "stability": stability}

    def _regression(self) -> tuple[Floats, Floats]:
        """Least-squares slope of health, and 1 - 2 standard deviations of it."""
        series = self._kept["health_score"]
        known = ~np.isnan(series)
        count = known.sum(axis=0)
        time = np.where(known, self._times[:, None, None], 0.0)
        health = np.where(known, series, 0.0)
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
