"""States of small traced models, and networks whose weights have been loaded."""

import numpy as np
import pytest
import torch

from tamiyo.contracts import (
    AdaptationType,
    HealthSignal,
    ModelTopology,
    PerformanceMetrics,
    SignalBatch,
    TopologyEdge,
    TopologyNode,
)
from tamiyo.graph import ModelGraphBuilder
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig

LINEAR_ACTIONS = (
    AdaptationType.REINITIALIZE,
    AdaptationType.PRUNE,
    AdaptationType.INSERT_NORMALIZATION,
)
MODEL_ACTIONS = (
    AdaptationType.SCALE_LEARNING_RATE,
    AdaptationType.CLIP_GRADIENTS,
    AdaptationType.RESTORE,
)


@pytest.fixture
def make_topology():
    """A chain Linear, activation, Linear, ..., with a skip over each pair where asked."""

    def make(layers=5, *, activation="ReLU", skips=False, isolated=0, model_actions=MODEL_ACTIONS):
        nodes = []
        for index in range(layers + isolated):
            linear = index % 2 == 0
            nodes.append(
                TopologyNode(
                    layer_id=index,
                    name=f"net.{index}",
                    type="Linear" if linear else activation,
                    parameters=72 if linear else 0,
                    shape=(8,),
                    actions=LINEAR_ACTIONS if linear else (AdaptationType.CHANGE_ACTIVATION,),
                )
            )
        edges = [TopologyEdge(source=i, target=i + 1) for i in range(layers - 1)]
        if skips:
            edges += [TopologyEdge(source=i, target=i + 2) for i in range(layers - 2)]
        return ModelTopology(
            run="run", nodes=tuple(nodes), edges=tuple(edges), actions=model_actions
        )

    return make


@pytest.fixture
def make_state():
    """A state with one signal per layer: `readings` maps a layer to fields of its signal."""
    builder = ModelGraphBuilder()

    def make(topology, readings=None, *, step=10, metrics=()):
        sent = SignalBatch.from_signals(
            HealthSignal(
                **{"layer_id": layer, "epoch": 0, "step": step, "timestamp": float(step)} | fields
            )
            for layer, fields in (readings or {}).items()
        )
        return builder.build_model_graph(SignalBatch(sent.columns, None, topology, tuple(metrics)))

    return make


@pytest.fixture
def make_report():
    def make(step, loss=1.0, **fields):
        return PerformanceMetrics(run="run", step=step, timestamp=float(step), loss=loss, **fields)

    return make


@pytest.fixture
def random_readings():
    def make(layers, seed=0):
        random = np.random.default_rng(seed)
        names = ("health_score", "dead_neuron_ratio", "saturation", "gradient_norm")
        return {layer: {name: float(random.random()) for name in names} for layer in range(layers)}

    return make


@pytest.fixture
def make_network():
    """A small network with weights large enough for its outputs to differ visibly."""

    def make(seed=0, **settings):
        defaults = {"hidden_dim": 16, "num_gnn_layers": 2, "num_attention_heads": 2}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = EnhancedTamiyoPolicyGNN(PolicyConfig(**defaults | settings))
            for name, parameter in network.named_parameters():
                if name.startswith("heads") and name.endswith("last.weight"):
                    torch.nn.init.normal_(parameter)
        return network

    return make
