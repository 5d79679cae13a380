"""Ingest from msgpack bytes to features, beside plain Python, on one core.

Bars: a million signals a second, and from publishing to features in under 5 ms at the 99th
percentile. The specification asked for 10,000 a second.
"""

import asyncio
import time

import numpy as np
import pytest

from reference import PythonIngest
from signals import BATCH, columns, messages
from tamiyo import _core, connect
from tamiyo.collect import ProductionHealthCollector
from tamiyo.contracts import Topic

BAR_SIGNALS_PER_SECOND = 1_000_000
BAR_P99_SECONDS = 0.005
MESSAGES = 20


def signals_per_second(benchmark, capsys):
    """Of the fastest round, which other programs disturbed least."""
    rate = MESSAGES * BATCH / benchmark.stats.stats.min
    benchmark.extra_info["signals_per_second"] = round(rate)
    with capsys.disabled():
        print(f"\n{benchmark.name}: {rate:,.0f} signals/s")
    return rate


def work(ingest, sent):
    """Each message in, then the aggregates out, as a decision cycle per message would."""
    for message in sent:
        ingest.ingest([message])
        ingest.layers()
    return ingest


@pytest.mark.parametrize("encoding", ["packed", "columns", "maps"])
@pytest.mark.benchmark(group="ingest: bytes to features")
def test_rust(benchmark, capsys, encoding):
    sent = messages(MESSAGES, encoding)

    def fresh():
        return (_core.Ingest("bench"), sent), {}

    ingest = benchmark.pedantic(work, setup=fresh, rounds=100)
    assert ingest.accounting()["total"]["sent"] == MESSAGES * BATCH
    assert signals_per_second(benchmark, capsys) >= BAR_SIGNALS_PER_SECOND


@pytest.mark.benchmark(group="ingest: bytes to features")
def test_plain_python(benchmark, capsys):
    sent = messages(MESSAGES, "maps")
    benchmark.pedantic(work, setup=lambda: ((PythonIngest(), sent), {}), rounds=3)
    signals_per_second(benchmark, capsys)


def test_publish_to_features_latency(capsys):
    """Each message is published on the bus, collected in the background, and read as features."""
    sent = messages(1000, "packed")

    async def measure():
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
        assert len(batch.layers["layer_id"]) == len(set(columns(0)["layer_id"]))
        await collector.stop_collection()
        await bus.close()
        return seconds

    p50, p99 = np.quantile(asyncio.run(measure()), [0.5, 0.99])
    with capsys.disabled():
        print(f"\npublish to features, {BATCH} a message: p50 {p50:.2e} s, p99 {p99:.2e} s")
    assert p99 < BAR_P99_SECONDS
