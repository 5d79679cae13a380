"""Collects one run's telemetry and hands out what a decision needs."""

import asyncio
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np

from tamiyo import _core
from tamiyo.contracts import (
    TELEMETRY_TOPICS,
    ModelTopology,
    PerformanceMetrics,
    SignalBatch,
    Topic,
    WireError,
)
from tamiyo.contracts.signals import Columns
from tamiyo.oona import BusClosedError, Message, OonaClient, Subscription

__all__ = ["CollectionStats", "ProductionHealthCollector"]

_Message = TypeVar("_Message", ModelTopology, PerformanceMetrics)

# Above this, ingesting a batch would hold up the event loop for about a millisecond.
_INLINE_BYTES = 256 * 1024


@dataclass(frozen=True)
class CollectionStats:
    """Where every signal went, and what else arrived."""

    run: str | None
    collecting: bool
    accounting: dict[str, Any]
    """Per producer and in total; see `tamiyo._core.Ingest.accounting`."""
    messages: int
    """Messages taken from the bus."""
    metrics_received: int
    topologies_received: int
    refused_messages: dict[str, int] = field(default_factory=dict)
    """Refused topology and metrics messages, by reason."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


class ProductionHealthCollector:
    """Subscribes to a run's telemetry and keeps it ready for the graph.

    Health signals, error-recovery events, kernel performance and cache hit rates are decoded,
    filtered, buffered and aggregated in Rust; the run's topology and model-level metrics are kept
    beside them. One collector serves one run: the one named, or else the first that it hears of.
    Signals of other runs are refused and counted.

    Args:
        oona_client: The bus.
        buffer_size: Signals held, in both lanes together; the oldest make room, counted.
        processing_batch_size: Most messages taken from the bus at once.
        run: The run to listen to.
        anomaly_threshold: See `SignalFilterEngine`.
        window: Signals per layer that the aggregates cover.
    """

    def __init__(
        self,
        oona_client: OonaClient,
        buffer_size: int = 50_000,
        processing_batch_size: int = 1000,
        *,
        run: str | None = None,
        anomaly_threshold: float = 2.0,
        window: int = 100,
    ) -> None:
        if processing_batch_size < 1:
            raise ValueError(f"processing_batch_size must be positive, got {processing_batch_size}")
        self._client = oona_client
        self._batch_size = processing_batch_size
        self._ingest = _core.Ingest(
            run, capacity=buffer_size, anomaly_threshold=anomaly_threshold, window=window
        )
        self._topology: ModelTopology | None = None
        self._metrics: deque[PerformanceMetrics] = deque(maxlen=256)
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None
        self._revision = 0
        self._changed = asyncio.Event()

    @property
    def run(self) -> str | None:
        """The run that this collector serves, once it is known."""
        return self._ingest.run

    @property
    def is_collecting(self) -> bool:
        """Whether signals are being taken in the background."""
        return self._task is not None and not self._task.done()

    @property
    def waiting(self) -> int:
        """Messages on the bus that were not taken yet."""
        return 0 if self._subscription is None else self._subscription.waiting

    @property
    def topology(self) -> ModelTopology | None:
        """The latest topology that the run announced."""
        return self._topology

    @property
    def alarm(self) -> str | None:
        """What the run's host found wrong when it last reported; `None` while nothing is."""
        return self._metrics[-1].alarm if self._metrics else None

    @property
    def revision(self) -> int:
        """Grows with everything new that arrives."""
        return self._revision

    def listen(self) -> Subscription:
        """Subscribe, if that was not done, without collecting yet; what arrives waits.

        It is the collector's one subscription, so what waits survives a failed collecting task.
        """
        if self._subscription is None:
            self._subscription = self._client.subscribe((*TELEMETRY_TOPICS, Topic.TOPOLOGY))
        return self._subscription

    async def start_intelligent_collection(self) -> None:
        """Subscribe and collect in the background; returns once signals are being taken.

        Raises:
            RuntimeError: collection runs already.
            BusClosedError: the bus is closed.
        """
        if self.is_collecting:
            raise RuntimeError("collection is running")
        self._task = asyncio.create_task(self._collect(self.listen()), name="collect")

    async def stop_collection(self) -> None:
        """Take what has arrived, then stop. Stopping twice is harmless."""
        if self._subscription is None:
            return
        self._subscription.close()
        if self._task is None:
            await self._collect(self._subscription)
        else:
            await self._task
        self._subscription = self._task = None

    async def wait(self) -> None:
        """Wait until collection ends; raises what ended it, if that was an error."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def wait_for_change(self, since: int) -> int:
        """Wait until `revision` differs from `since`; returns the new one."""
        while self._revision == since:
            self._changed.clear()
            await self._changed.wait()
        return self._revision

    async def get_recent_signals(self, count: int = 500) -> SignalBatch:
        """The newest `count` signals in time order, urgent ones first to be kept, with the
        per-layer aggregates, topology and metrics that the graph is made from. Nothing is drained.
        """  # noqa: D205
        return self._batch(self._ingest.recent(count))

    async def get_signals_for_layer(self, layer_id: int, count: int = 100) -> SignalBatch:
        """The newest `count` signals of one layer, in time order. An unknown layer has none."""
        return self._batch(self._ingest.for_layer(layer_id, count))

    def get_layer_aggregates(self) -> Columns:
        """Per-layer aggregates over the window of every valid signal, in ascending layer id."""
        return self._ingest.layers()

    def get_collection_stats(self) -> CollectionStats:
        """Exact counts since the collector was made."""
        return CollectionStats(
            run=self.run,
            collecting=self.is_collecting,
            accounting=self._ingest.accounting(),
            messages=self._counts.total(),
            metrics_received=self._counts[Topic.PERFORMANCE_METRICS],
            topologies_received=self._counts[Topic.TOPOLOGY],
            refused_messages=dict(self._refused),
        )

    async def take_waiting(self) -> int:
        """Take what waits on the bus right now, without waiting for more; returns how many.

        For a caller that drives collection step by step instead of in the background.
        """
        subscription = self.listen()
        messages = []
        while (message := subscription.get_nowait()) is not None:
            messages.append(message)
        await self._take(messages)
        return len(messages)

    def _batch(self, columns: dict[str, Any]) -> SignalBatch:
        return SignalBatch(
            columns, self.get_layer_aggregates(), self._topology, tuple(self._metrics)
        )

    async def _collect(self, subscription: Subscription) -> None:
        while True:
            try:
                messages = await subscription.get(self._batch_size)
            except BusClosedError:
                return
            await self._take(messages)

    async def _take(self, messages: list[Message]) -> None:
        if not messages:
            return
        signals = []
        for message in messages:
            self._counts[message.topic] += 1
            if message.topic == Topic.TOPOLOGY:
                self._take_topology(message.payload)
            elif message.topic == Topic.PERFORMANCE_METRICS:
                self._take_metrics(message.payload)
            else:
                signals.append(message.payload)
        if sum(map(len, signals)) > _INLINE_BYTES:
            await asyncio.to_thread(self._ingest.ingest, signals)
        elif signals:
            self._ingest.ingest(signals)
        self._revision += 1
        self._changed.set()

    def _take_topology(self, payload: bytes) -> None:
        topology = self._decode(ModelTopology, payload)
        if topology is not None:
            self._ingest.declare(np.arange(len(topology), dtype=np.uint32))
            self._topology = topology

    def _take_metrics(self, payload: bytes) -> None:
        metrics = self._decode(PerformanceMetrics, payload)
        if metrics is not None:
            self._metrics.append(metrics)

    def _decode(self, kind: type[_Message], payload: bytes) -> _Message | None:
        try:
            message = kind.from_bytes(payload)
        except WireError as error:
            self._refused[str(error).partition(":")[0]] += 1
            return None
        if not self._ingest.adopt(message.run):
            self._refused["foreign run"] += 1
            return None
        return message
