"""Topologies and per-layer aggregates to build graphs from."""

import numpy as np
import pytest

from tamiyo import _core
from tamiyo.contracts import (
    AdaptationType,
    HealthSignal,
    ModelTopology,
    SignalBatch,
    TopologyEdge,
    TopologyNode,
)
from tamiyo.graph import schema


@pytest.fixture
def make_topology():
    def make(edges=((0, 1), (1, 2)), types=("Linear", "ReLU", "Linear"), **node_fields):
        nodes = tuple(
            TopologyNode(
                layer_id=index,
                name=f"{index}",
                type=kind,
                parameters=100 if kind == "Linear" else 0,
                shape=(8,),
                actions=(AdaptationType.PRUNE,) if kind == "Linear" else (),
                **node_fields,
            )
            for index, kind in enumerate(types)
        )
        links = tuple(TopologyEdge(source=source, target=target) for source, target in edges)
        return ModelTopology(run="r", nodes=nodes, edges=links, actions=(AdaptationType.RESTORE,))

    return make


@pytest.fixture
def make_batch():
    """A batch whose signals are `readings`: (layer id, fields) in order of time."""

    def make(readings=(), *, topology=None, metrics=(), aggregated=False):
        batch = SignalBatch.from_signals(
            HealthSignal(
                **{"layer_id": layer, "epoch": 1, "step": 10 + index, "timestamp": 50.0 + index}
                | fields
            )
            for index, (layer, fields) in enumerate(readings)
        )
        layers = _core.window_features(batch.columns) if aggregated else None
        return SignalBatch(batch.columns, layers, topology, tuple(metrics))

    return make


@pytest.fixture
def column():
    """Value of a named node, edge or global column where it is measured, else NaN."""

    def read(data, kind, name):
        names = {"x": schema.NODE_COLUMNS, "edge": schema.EDGE_COLUMNS}.get(
            kind, schema.GLOBAL_COLUMNS
        )
        index = [item.name for item in names].index(name)
        values, measured = {
            "x": (data.x, data.x_measured),
            "edge": (data.edge_attr, data.edge_measured),
            "global": (data.global_features, data.global_measured),
        }[kind]
        return np.where(measured[:, index], values[:, index], np.nan)

    return read
