"""The same work in plain Python: msgpack, pydantic, NumPy. What the Rust core is compared with."""

from collections import deque

import msgpack
import numpy as np
from pydantic import BaseModel, Field, TypeAdapter

from tamiyo.contracts import MEASUREMENTS


class Signal(BaseModel):
    """One health signal, validated."""

    layer_id: int = Field(ge=0, lt=2**32)
    epoch: int = Field(ge=0)
    step: int = Field(ge=0)
    timestamp: float
    health_score: float = Field(ge=0, le=1)
    activation_variance: float = Field(ge=0)
    dead_neuron_ratio: float = Field(ge=0, le=1)
    avg_correlation: float = Field(ge=-1, le=1)
    gradient_norm: float = Field(ge=0)
    weight_norm: float = Field(ge=0)
    update_ratio: float = Field(ge=0)
    saturation: float = Field(ge=0, le=1)
    execution_latency: float = Field(ge=0)
    cache_hit_rate: float = Field(ge=0, le=1)
    error_count: int = Field(default=0, ge=0)
    active_seeds: int = Field(ge=0)
    total_seeds: int = Field(ge=0)


_signals = TypeAdapter(list[Signal])


class PythonIngest:
    """Decode, validate, filter, buffer and aggregate, one signal at a time."""

    def __init__(self, capacity: int = 50_000, window: int = 100) -> None:
        self._held: deque[Signal] = deque(maxlen=capacity)
        self._windows: dict[int, deque[Signal]] = {}
        self._ordinary: dict[int, int] = {}
        self._window = window

    def ingest(self, messages: list[bytes]) -> int:
        """Take envelopes with `maps` bodies; returns how many signals they held."""
        return sum(self._take(msgpack.unpackb(message)["body"]) for message in messages)

    def _take(self, body: list[dict[str, object]]) -> int:
        signals = _signals.validate_python(body)
        for signal in signals:
            window = self._windows.setdefault(signal.layer_id, deque(maxlen=self._window))
            if self._passes(signal, window):
                self._held.append(signal)
            window.append(signal)
        return len(signals)

    def layers(self) -> dict[str, np.ndarray]:
        """Per layer: the mean of each measurement, and the trend of health."""
        columns = {f"{name}_mean": np.empty(len(self._windows)) for name in MEASUREMENTS}
        columns["health_trend"] = np.empty(len(self._windows))
        for row, window in enumerate(self._windows.values()):
            for name in MEASUREMENTS:
                columns[f"{name}_mean"][row] = np.mean([getattr(s, name) for s in window])
            times = np.array([signal.timestamp for signal in window])
            times -= times.mean()
            health = np.array([signal.health_score for signal in window])
            columns["health_trend"][row] = times @ health / max(times @ times, 1e-12)
        return columns

    def _passes(self, signal: Signal, window: deque[Signal]) -> bool:
        if signal.error_count:
            return True
        if len(window) >= 10:
            history = np.array([previous.health_score for previous in window])
            if abs(signal.health_score - history.mean()) > 2 * max(history.std(), 1e-6):
                return True
        ordinary = self._ordinary.get(signal.layer_id, 0)
        self._ordinary[signal.layer_id] = ordinary + 1
        return ordinary % 10 == 0
