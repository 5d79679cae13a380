"""Puts signals, metrics, topology and results on the bus without ever waiting for it."""

import logging
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tamiyo import _core
from tamiyo.contracts import (
    FIELDS,
    AdaptationResult,
    Flag,
    ModelTopology,
    PerformanceMetrics,
    Topic,
)
from tamiyo.contracts.wire import ControlMessage
from tamiyo.host.lifecycle import Stage
from tamiyo.host.sample import Sample
from tamiyo.host.seeds import Seed
from tamiyo.oona import BusClosedError, BusFullError, OonaClient

__all__ = ["Telemetry"]

logger = logging.getLogger("tamiyo.host")

OUTBOX = 256
"""Control messages that wait for a full queue to drain; the oldest give way beyond that."""


class Telemetry:
    """What a run publishes.

    Telemetry that cannot be sent is lost and counted, and its sequence numbers show the gap.
    Control messages that a full queue refuses are kept and sent again at the next step. After the
    bus was closed everything is lost, which is logged once.
    """

    def __init__(self, client: OonaClient, run: str, producer: str = "host") -> None:
        self._client = client
        self._run = run
        self._producer = producer
        # A restarted producer begins at sequence 0 again; its start time tells the lives apart.
        self._incarnation = time.time_ns() // 1000
        self._sequence = 0
        self._outbox: deque[tuple[Topic, ControlMessage]] = deque()
        self.closed = False
        self.lost: Counter[str] = Counter()
        """Messages by topic that were given up."""

    def signals(self, sample: Sample, *, epoch: int, seeds: Iterable[Seed] = ()) -> None:
        """One batch with one signal per layer.

        Args:
            sample: What was measured.
            epoch: Training epoch.
            seeds: The seeds of the run.
        """
        size = len(sample.columns["flags"])
        constant = {"epoch": epoch, "step": sample.step, "timestamp": time.time()}
        measured = sample.columns | _seed_columns(seeds, sample.columns["flags"])
        columns = {"layer_id": np.arange(size, dtype=np.uint32)}
        for field in FIELDS:
            if field.name in constant:
                columns[field.name] = np.full(size, constant[field.name], field.dtype)
            elif field.name in measured:
                # A ratio of doubles may lie beyond what a single-precision column can hold.
                column = np.minimum(measured[field.name], field.high)
                columns[field.name] = column.astype(field.dtype)
        payload = _core.encode(
            columns,
            run=self._run,
            producer=self._producer,
            incarnation=self._incarnation,
            seq=self._sequence,
        )
        self._sequence += size
        self._send(Topic.HEALTH_SIGNALS, payload)

    def metrics(self, metrics: PerformanceMetrics) -> None:
        """Model-level metrics."""
        self._send(Topic.PERFORMANCE_METRICS, metrics.to_bytes())

    def control(self, message: ModelTopology | AdaptationResult) -> None:
        """A topology or a result, which must arrive."""
        topic = Topic.TOPOLOGY if isinstance(message, ModelTopology) else Topic.RESULTS
        self._outbox.append((topic, message))
        if len(self._outbox) > OUTBOX:
            self.lost[self._outbox.popleft()[0]] += 1
        self.flush()

    def flush(self) -> None:
        """Send what waits, until a queue is full."""
        while self._outbox:
            topic, message = self._outbox[0]
            if not self._send(topic, message.to_bytes()):
                return
            self._outbox.popleft()

    @property
    def waiting(self) -> bool:
        """Whether control messages wait for room."""
        return bool(self._outbox)

    def _send(self, topic: Topic, payload: bytes) -> bool:
        """False if the message is to be tried again."""
        try:
            if not self.closed:
                self._client.publish_nowait(topic, payload)
                return True
        except BusFullError:
            return False
        except BusClosedError:
            self.closed = True
            logger.warning("tamiyo: the bus is closed, nothing is published any more")
        self.lost[topic] += 1
        return True


def _seed_columns(seeds: Iterable[Seed], flags: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Per layer: seeds in the model, those of them that are not permanent yet, and the flags.

    A layer is ready for a transition if a seed of it leaves its stage with the next step.
    """
    total, active, flags = np.zeros_like(flags), np.zeros_like(flags), flags.copy()
    for seed in seeds:
        if not seed.stage.ended:
            total[seed.layer_id] += 1
            active[seed.layer_id] += seed.stage is not Stage.PERMANENT
            flags[seed.layer_id] |= np.uint32(Flag.READY_FOR_TRANSITION if seed.ready else 0)
    return {"total_seeds": total, "active_seeds": active, "flags": flags}
