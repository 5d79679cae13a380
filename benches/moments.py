"""Moments of large runs, and how long one call about them takes."""

import time
from typing import NamedTuple

import numpy as np

from tamiyo import _core
from tamiyo.contracts import (
    AdaptationType,
    HealthSignal,
    ModelTopology,
    PerformanceMetrics,
    SignalBatch,
    TopologyEdge,
    TopologyNode,
)
from tamiyo.contracts.signals import MEASUREMENTS


class Milliseconds(NamedTuple):
    """Percentiles over many calls, in CPU time of the thread, and the median wall clock."""

    p50: float
    p99: float
    wall: float


def thread_milliseconds(*calls, repeats, rounds=3, warm_up=20):
    """Percentiles of each call in its quietest round: neighbours of the core slow it down, too.

    The calls take turns, so that disturbances meet all of them.
    """
    for call in calls * warm_up:
        call()
    spent = np.empty((rounds * repeats, len(calls), 2))
    for row in spent:
        for column, call in enumerate(calls):
            started = time.thread_time(), time.perf_counter()
            call()
            row[column] = time.thread_time() - started[0], time.perf_counter() - started[1]
    found = [
        min(map(_percentiles, np.split(one, rounds)), key=lambda times: times.p99)
        for one in 1e3 * spent.transpose(1, 0, 2)
    ]
    return found[0] if len(calls) == 1 else found


def _percentiles(spent):
    return Milliseconds(*np.percentile(spent[:, 0], [50, 99]), np.median(spent[:, 1]))


def snapshot(layers):
    """A batch as a collector hands it out: aggregates of `layers` layers, topology, 50 reports."""
    random = np.random.default_rng(0)
    kinds = ("Linear", "ReLU", "LayerNorm")
    actions = (AdaptationType.REINITIALIZE, AdaptationType.PRUNE, AdaptationType.WIDEN)
    nodes = tuple(
        TopologyNode(
            layer_id=index,
            name=f"net.{index}",
            type=kinds[index % 3],
            parameters=100,
            shape=(64,),
            actions=actions,
        )
        for index in range(layers)
    )
    chain = [TopologyEdge(source=i, target=i + 1) for i in range(layers - 1)]
    skips = [TopologyEdge(source=i, target=i + 5, joins=True) for i in range(0, layers - 5, 5)]
    topology = ModelTopology(
        run="bench",
        nodes=nodes,
        edges=tuple(chain + skips),
        actions=(AdaptationType.RESTORE, AdaptationType.SCALE_LEARNING_RATE),
    )
    signals = SignalBatch.from_signals(
        HealthSignal(
            layer_id=layer,
            epoch=0,
            step=step,
            timestamp=float(step),
            **{name: float(random.random()) for name in MEASUREMENTS},
        )
        for step in range(5)
        for layer in range(layers)
    )
    metrics = tuple(
        PerformanceMetrics(
            run="bench", step=step, timestamp=float(step), loss=2.0 / (step + 1), snapshot_step=0
        )
        for step in range(50)
    )
    aggregates = _core.window_features(signals.columns)
    return SignalBatch(signals[-500:].columns, aggregates, topology, metrics)
