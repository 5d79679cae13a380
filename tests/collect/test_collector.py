"""The collector on a real bus: what arrives is kept, converted, aggregated and accounted for."""

import math

import msgpack
import numpy as np
import pytest

from tamiyo import _core, connect
from tamiyo.collect import ProductionHealthCollector, SignalFilterEngine
from tamiyo.contracts import (
    HealthSignal,
    ModelTopology,
    PerformanceMetrics,
    SignalBatch,
    Topic,
    TopologyNode,
)

NOW = 1.7e9


@pytest.fixture
async def bus():
    client = connect("memory://")
    yield client
    await client.close()


@pytest.fixture
async def collector(bus):
    collector = ProductionHealthCollector(bus)
    await collector.start_intelligent_collection()
    yield collector
    await collector.stop_collection()


def signals(count, *, layer=0, first=0, **fields):
    rows = [
        HealthSignal(
            layer_id=layer,
            epoch=0,
            step=first + i,
            timestamp=NOW + first + i,
            **{"health_score": 0.9, **fields},
        )
        for i in range(count)
    ]
    return SignalBatch.from_signals(rows)


def envelope(batch, *, seq=0, run="r", producer="p", encoding="packed"):
    return _core.encode(
        dict(batch.columns), run=run, producer=producer, incarnation=1, seq=seq, encoding=encoding
    )


def event(topic, body, *, seq=0):
    return msgpack.packb(
        {"v": 1, "run": "r", "producer": topic, "incarnation": 1, "seq": seq, "n": len(body),
         "topic": topic, "body": body}
    )  # fmt: skip


async def deliver(bus, collector, *messages):
    for topic, payload in messages:
        seen = collector.revision
        bus.publish_nowait(topic, payload)
        await collector.wait_for_change(seen)


async def health(bus, collector, batch, **options):
    await deliver(bus, collector, (Topic.HEALTH_SIGNALS, envelope(batch, **options)))


def total(collector):
    return collector.get_collection_stats().accounting["total"]


@pytest.mark.parametrize("encoding", ["packed", "columns", "maps"])
async def test_signals_arrive_in_time_order_whatever_their_encoding(bus, collector, encoding):
    await health(bus, collector, signals(5, error_count=1), encoding=encoding)
    recent = await collector.get_recent_signals()
    assert [signal.step for signal in recent] == [0, 1, 2, 3, 4]
    assert repr(recent[0]) == repr(signals(5, error_count=1)[0])  # NaN equals nothing
    assert [signal.step for signal in await collector.get_recent_signals(2)] == [3, 4]


async def test_aggregates_cover_the_thinned_signals_too(bus, collector):
    await health(bus, collector, signals(50, gradient_norm=2.0))
    recent = await collector.get_recent_signals()
    assert len(recent) == 5
    assert recent.layers["count"].tolist() == [50]
    assert recent.layers["gradient_norm_mean"].tolist() == [2.0]
    assert math.isnan(recent.layers["weight_norm_mean"][0])


async def test_one_layer(bus, collector):
    await health(bus, collector, signals(3, layer=1, error_count=1))
    await health(bus, collector, signals(3, layer=2, error_count=1), producer="q")
    assert {s.layer_id for s in await collector.get_signals_for_layer(2)} == {2}
    assert len(await collector.get_signals_for_layer(99)) == 0


async def test_every_signal_is_accounted_for(bus, collector):
    await health(bus, collector, signals(30), seq=10)
    await health(bus, collector, signals(30, first=30), seq=40)
    await health(bus, collector, signals(5), run="other")
    bad = signals(4, health_score=2.0)
    await deliver(bus, collector, (Topic.HEALTH_SIGNALS, envelope(bad, seq=70)))
    counts = total(collector)
    assert counts["lost"] == 10
    assert counts["held"] + counts["thinned"] == 60
    assert sum(counts["refused"].values()) >= 4
    accounted = sum(counts[key] for key in ("held", "drained", "thinned", "overwritten", "lost"))
    assert counts["sent"] == accounted + sum(counts["refused"].values())


async def test_events_become_signals(bus, collector):
    base = {"layer_id": 3, "timestamp": NOW}
    kernel = {**base, "latency_ms": 5.0, "executions": 100, "errors": 10, "cache_hit_rate": 0.5}
    await deliver(
        bus,
        collector,
        (Topic.ERROR_RECOVERY, event(Topic.ERROR_RECOVERY, [{**base, "recovered": True}])),
        (Topic.ERROR_RECOVERY, event(Topic.ERROR_RECOVERY, [{**base, "recovered": False}], seq=1)),
        (Topic.KERNEL_PERFORMANCE, event(Topic.KERNEL_PERFORMANCE, [kernel])),
        (Topic.CACHE_HIT_RATES, event(Topic.CACHE_HIT_RATES, [{**base, "cache_hit_rate": 0.25}])),
    )
    received = await collector.get_signals_for_layer(3)
    by_health = {round(s.health_score, 4): s for s in received if not math.isnan(s.health_score)}
    assert by_health[0.8].error_count == 0
    assert by_health[0.2].error_count == 1
    assert by_health[0.5].execution_latency == 5.0  # .4 * .5 + .4 * .5 + .2 * .5
    aggregates = (await collector.get_recent_signals()).layers
    assert aggregates["count"].tolist() == [4]


async def test_topology_and_metrics_come_with_the_signals(bus, collector):
    node = TopologyNode(layer_id=0, name="a", type="Linear")
    topology = ModelTopology(run="r", nodes=(node,))
    metrics = PerformanceMetrics(run="r", step=7, timestamp=NOW, loss=0.5)
    await deliver(
        bus,
        collector,
        (Topic.TOPOLOGY, topology.to_bytes()),
        (Topic.PERFORMANCE_METRICS, metrics.to_bytes()),
    )
    batch = await collector.get_recent_signals()
    assert (batch.topology, batch.metrics, len(batch)) == (topology, (metrics,), 0)


async def test_other_runs_and_malformed_messages_are_refused_and_counted(bus, collector):
    foreign = PerformanceMetrics(run="other", step=1, timestamp=NOW)
    await health(bus, collector, signals(1, error_count=1))
    await deliver(
        bus,
        collector,
        (Topic.PERFORMANCE_METRICS, foreign.to_bytes()),
        (Topic.TOPOLOGY, b"\xc1"),
        (Topic.HEALTH_SIGNALS, b"\xc1"),
        (Topic.KERNEL_PERFORMANCE, b""),
    )
    stats = collector.get_collection_stats()
    assert stats.refused_messages == {"foreign run": 1, "malformed": 1}
    assert sum(stats.accounting["unreadable"].values()) == 2
    assert stats.messages == 5
    assert len(await collector.get_recent_signals()) == 1
    assert msgpack.packb(stats.to_dict())


async def test_a_named_run_is_the_only_one_heard(bus):
    collector = ProductionHealthCollector(bus, run="mine")
    await collector.start_intelligent_collection()
    await health(bus, collector, signals(1, error_count=1), run="theirs")
    await health(bus, collector, signals(2, error_count=1), run="mine")
    assert len(await collector.get_recent_signals()) == 2
    await collector.stop_collection()


async def test_what_had_arrived_is_taken_before_stopping(bus, collector):
    for i in range(20):
        bus.publish_nowait(Topic.HEALTH_SIGNALS, envelope(signals(1, error_count=1), seq=i))
    await collector.stop_collection()
    assert total(collector)["held"] == 20
    await collector.stop_collection()


async def test_starting_twice_is_an_error_and_restarting_is_not(bus, collector):
    with pytest.raises(RuntimeError, match="running"):
        await collector.start_intelligent_collection()
    await collector.stop_collection()
    await collector.start_intelligent_collection()
    assert collector.get_collection_stats().collecting


async def test_a_closed_bus_ends_collection_and_keeps_what_was_held(bus, collector):
    await health(bus, collector, signals(1, error_count=1))
    await bus.close()
    await collector.wait()
    assert len(await collector.get_recent_signals()) == 1


async def test_step_by_step_collection(bus):
    collector = ProductionHealthCollector(bus)
    assert await collector.take_waiting() == 0
    bus.publish_nowait(Topic.HEALTH_SIGNALS, envelope(signals(1, error_count=1)))
    assert collector.waiting == 1
    assert await collector.take_waiting() == 1
    assert len(await collector.get_recent_signals()) == 1


async def test_a_large_backlog_is_taken_in_the_background(bus, collector):
    large = signals(5000, error_count=1)
    for i in range(3):
        bus.publish_nowait(Topic.HEALTH_SIGNALS, envelope(large, seq=5000 * i))
    await collector.wait_for_change(0)
    assert total(collector)["held"] == 15000


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="processing_batch_size"):
        ProductionHealthCollector(connect(), processing_batch_size=0)
    with pytest.raises(ValueError, match="anomaly_threshold"):
        SignalFilterEngine(anomaly_threshold=np.nan)


def test_the_filter_keeps_the_first_and_every_tenth_and_what_stands_out():
    engine = SignalFilterEngine()
    kept = [engine.should_process(signal) for signal in signals(31)]
    assert [i for i, keep in enumerate(kept) if keep] == [0, 10, 20, 30]
    assert engine.should_process(signals(1, health_score=0.1)[0])
    assert engine.should_process(signals(1, error_count=1)[0])
    assert engine.should_process(signals(1, flags=1)[0])
