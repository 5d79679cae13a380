"""The controller of one run: collects, thinks, decides, writes down, on one event loop."""

import asyncio
import logging
import signal
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tamiyo.collect import ProductionHealthCollector
from tamiyo.contracts import Topic
from tamiyo.graph import ModelGraphBuilder
from tamiyo.oona import BusClosedError, OonaClient
from tamiyo.policy import DecisionPolicy, Verdict, learned_policy
from tamiyo.service.cycle import DecisionCycle
from tamiyo.service.journal import DecisionJournal, read_journal
from tamiyo.service.supervisor import Supervisor

__all__ = ["ServiceConfig", "TamiyoService"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceConfig:
    """How a service runs.

    Attributes:
        pause_seconds: Shortest time between two cycles, so that a busy run cannot make the
            controller spin.
        think_share: Share of the time that cycles may take while nothing is wrong; in the process
            of the training loop they hold it up. A run in alarm, and symptoms that have to be
            confirmed, are thought about without delay.
        buffer_size: Signals held by the collector.
        window: Signals per layer that the aggregates cover.
        journal: File of the decision journal; without one nothing is written down.
    """

    pause_seconds: float = 0.01
    think_share: float = 0.01
    buffer_size: int = 50_000
    window: int = 100
    journal: Path | None = None

    def __post_init__(self) -> None:
        if self.pause_seconds < 0:
            raise ValueError("pause_seconds must not be negative")
        if not 0 < self.think_share <= 1:
            raise ValueError("think_share must lie in (0, 1]")


class TamiyoService:
    """Supervises collection, the decision cycle and the results of decisions for one run.

    `await service.run()` works until `stop()` or, on a main thread, SIGINT or SIGTERM.
    `start()` and `shut_down()` do the two halves for callers with a loop of their own, and
    `advance()` takes a single step for callers that keep training and deciding in lockstep.

    Args:
        client: The bus.
        policy: Who decides; by default `tamiyo.policy.learned_policy()`.
        run: The run to control; by default the first that is heard of.
        config: How to run.
    """

    def __init__(
        self,
        client: OonaClient,
        policy: DecisionPolicy | None = None,
        *,
        run: str | None = None,
        config: ServiceConfig | None = None,
    ) -> None:
        self.config = config or ServiceConfig()
        self.policy = policy if policy is not None else learned_policy()
        self.collector = ProductionHealthCollector(
            client, self.config.buffer_size, run=run, window=self.config.window
        )
        self._client = client
        self._journal = DecisionJournal(self.config.journal) if self.config.journal else None
        self.term = self._next_term()
        self._cycle = DecisionCycle(
            client, self.collector, ModelGraphBuilder(), self.policy, self._journal, self.term
        )
        self._results = client.subscribe([Topic.RESULTS])
        self.collector.listen()
        self._supervisor = Supervisor()
        self._stopping = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shut_down()

    async def start(self) -> None:
        """Start every part and return."""
        await self.collector.start_intelligent_collection()
        self._supervisor.start("collect", self._collect)
        self._supervisor.start("results", self._take_results)
        self._supervisor.start("decide", self._keep_deciding)

    async def shut_down(self) -> None:
        """Stop every part, take the results that have arrived, close the journal."""
        await self._supervisor.stop()
        try:
            await self.collector.stop_collection()
        except Exception:
            log.exception("collection had failed before it was stopped")
        self._take_waiting_results()
        self._results.close()
        if self._journal is not None:
            self._journal.append("stopped", term=self.term)
            self._journal.close()

    async def run(self, *, thinking: bool = True) -> None:
        """Work until told to stop; with `thinking` off, only when `advance()` is called."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM) if _on_main_thread() else ()
        for number in signals:
            loop.add_signal_handler(number, self.stop)
        try:
            if thinking:
                await self.start()
            await self._stopping.wait()
        finally:
            await self.shut_down()
            for number in signals:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Make `run()` return. Call on the service's loop."""
        self._stopping.set()

    def has_news(self) -> bool:
        """Whether anything waits on the bus for `advance()`. Callable from any thread."""
        return bool(self.collector.waiting or self._results.waiting)

    async def advance(self) -> Verdict | None:
        """Take what waits on the bus and think once; `None` when nothing new had come."""
        self._take_waiting_results()
        if not await self.collector.take_waiting():
            return None
        return await self._cycle.think()

    def stats(self) -> dict[str, Any]:
        """Collection, cycles and the state of every part, in plain types."""
        return {
            "term": self.term,
            "policy": {"name": self.policy.name, "version": self.policy.version},
            "collection": self.collector.get_collection_stats().to_dict(),
            "cycle": self._cycle.stats.to_dict(),
            "parts": {name: asdict(part) for name, part in self._supervisor.parts.items()},
        }

    async def _collect(self) -> None:
        if not self.collector.is_collecting:
            await self.collector.start_intelligent_collection()
        await self.collector.wait()

    async def _take_results(self) -> None:
        while True:
            try:
                messages = await self._results.get(100)
            except BusClosedError:
                return
            for message in messages:
                self._cycle.take_result(message.payload)

    def _take_waiting_results(self) -> None:
        try:
            while (message := self._results.get_nowait()) is not None:
                self._cycle.take_result(message.payload)
        except BusClosedError:
            return

    async def _keep_deciding(self) -> None:
        seen = -1
        while True:
            seen = await self.collector.wait_for_change(seen)
            verdict = await self._cycle.think()
            await asyncio.sleep(self.config.pause_seconds)
            if verdict is not None and verdict.quiet:
                seconds = self._cycle.stats.last_seconds
                await self._rest(seconds / self.config.think_share - seconds)

    async def _rest(self, seconds: float) -> None:
        """Wait, but no longer than until the host raises an alarm."""
        seen = self.collector.revision
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.collector.alarm is None:
                    seen = await self.collector.wait_for_change(seen)

    def _next_term(self) -> int:
        """One more than any earlier controller of this journal, so that hosts can tell us apart."""
        if self._journal is None:
            return 1
        earlier = [
            entry["term"]
            for entry in read_journal(self._journal.path)
            if entry["event"] == "started"
        ]
        term = max(earlier, default=0) + 1
        self._journal.append(
            "started", term=term, policy=self.policy.name, version=self.policy.version
        )
        return term


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
