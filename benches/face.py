"""Ingest as Python sees it: signals per second on one core, and from publishing to features."""

import asyncio
import time
from collections.abc import Callable

import numpy as np

from signals import BATCH, messages
from tamiyo import _core, connect
from tamiyo.collect import ProductionHealthCollector
from tamiyo.contracts import Topic

MESSAGES = 20


def fastest(work: Callable[[], object], rounds: int) -> float:
    """CPU seconds of the fastest round, which other programs disturbed least."""
    seconds = []
    for _ in range(rounds):
        started = time.thread_time()
        work()
        seconds.append(time.thread_time() - started)
    return min(seconds)


def signals_per_second(encoding: str, rounds: int = 100) -> float:
    """Each message in, then the aggregates out, as a decision cycle per message would."""
    first, then = np.split(np.array(messages(2 * MESSAGES, encoding), object), 2)
    seconds = []
    for _ in range(rounds):
        ingest = _core.Ingest("bench")
        ingest.ingest(first.tolist())

        def work(ingest=ingest):
            for message in then:
                ingest.ingest([message])
                ingest.layers()

        seconds.append(fastest(work, 1))
        total = ingest.accounting()["total"]
        assert total["sent"] == 2 * MESSAGES * BATCH
        assert not total["refused"]
    return MESSAGES * BATCH / min(seconds)


async def publish_to_features(count: int = 3000) -> list[float]:
    """Seconds from publishing a message on the bus until the features that it changed are read."""
    sent = messages(count, "packed")
    bus = connect("memory://")
    collector = ProductionHealthCollector(bus, run="bench")
    await collector.start_intelligent_collection()
    seconds = []
    for message in sent:
        seen = collector.revision
        started = time.perf_counter()
        bus.publish_nowait(Topic.HEALTH_SIGNALS, message)
        await collector.wait_for_change(seen)
        batch = await collector.get_recent_signals(500)
        seconds.append(time.perf_counter() - started)
        assert batch.layers["count"].sum() > 0
    await collector.stop_collection()
    await bus.close()
    return seconds


def publish_to_features_p99() -> float:
    """The 99th percentile, in seconds of wall-clock time."""
    return float(np.quantile(asyncio.run(publish_to_features()), 0.99))
