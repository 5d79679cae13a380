"""A bus, and a run of three linear layers that shows itself on it."""

import pytest

from tamiyo import _core, connect
from tamiyo.contracts import (
    AdaptationType,
    HealthSignal,
    ModelTopology,
    SignalBatch,
    Topic,
    TopologyEdge,
    TopologyNode,
)


@pytest.fixture
async def bus():
    client = connect("memory://")
    yield client
    await client.close()


@pytest.fixture
def topology():
    nodes = tuple(
        TopologyNode(
            layer_id=i,
            name=f"l{i}",
            type="Linear",
            parameters=10,
            actions=(AdaptationType.REINITIALIZE,),
        )
        for i in range(3)
    )
    edges = (TopologyEdge(source=0, target=1), TopologyEdge(source=1, target=2))
    actions = (AdaptationType.SCALE_LEARNING_RATE,)
    return ModelTopology(run="r", nodes=nodes, edges=edges, actions=actions)


@pytest.fixture
def sample(bus, topology):
    """Publishes what a probe shows at a step, which is a multiple of ten."""
    bus.publish_nowait(Topic.TOPOLOGY, topology.to_bytes())

    def publish(step, dead=0.1):
        rows = [
            HealthSignal(
                layer_id=i,
                epoch=0,
                step=step,
                timestamp=1.7e9 + step,
                health_score=0.9,
                dead_neuron_ratio=dead if i == 1 else 0.1,
                update_ratio=1e-3,
                gradient_norm=1.0,
            )
            for i in range(3)
        ]
        payload = _core.encode(
            dict(SignalBatch.from_signals(rows).columns),
            run="r",
            producer="host",
            incarnation=1,
            seq=(step // 10 - 1) * 3,
        )
        bus.publish_nowait(Topic.HEALTH_SIGNALS, payload)

    return publish
