"""Puts signals, metrics, topology and results on the bus without ever waiting for it."""

import logging
import time
from collections import Counter, deque

import numpy as np

from tamiyo import _core
from tamiyo.contracts import FIELDS, AdaptationResult, ModelTopology, PerformanceMetrics, Topic
from tamiyo.contracts.wire import ControlMessage
from tamiyo.host.probe import Sample
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

    def signals(self, sample: Sample, *, epoch: int) -> None:
        """One batch with one signal per layer."""
        size = len(sample.columns["flags"])
        constant = {
            "epoch": epoch,
            "step": sample.step,
            "timestamp": time.time(),
            "active_seeds": 0,
            "total_seeds": 0,
        }
        columns = {"layer_id": np.arange(size, dtype=np.uint32)}
        for field in FIELDS:
            if field.name in constant:
                columns[field.name] = np.full(size, constant[field.name], field.dtype)
            elif field.name in sample.columns:
                # A ratio of doubles may lie beyond what a single-precision column can hold.
                column = np.minimum(sample.columns[field.name], field.high)
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
