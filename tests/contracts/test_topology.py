"""The topology's own rules: ids, names, edges, depth."""

import pytest
from pydantic import ValidationError

from tamiyo.contracts import ModelTopology, TopologyEdge, TopologyNode


def topology(count, *edges):
    nodes = tuple(TopologyNode(layer_id=i, name=f"l{i}", type="Linear") for i in range(count))
    pairs = tuple(TopologyEdge(source=source, target=target) for source, target in edges)
    return ModelTopology(run="r", nodes=nodes, edges=pairs)


def test_depth_is_the_longest_forward_path():
    assert topology(5, (0, 1), (1, 2), (0, 3), (2, 3), (3, 4)).depths == [0, 1, 2, 3, 4]


def test_a_layer_called_twice_closes_a_cycle_without_harm():
    assert topology(3, (0, 1), (1, 2), (2, 1), (1, 1)).depths == [0, 1, 2]


def test_one_node_and_none():
    assert topology(1).depths == [0]
    assert len(topology(0)) == 0


def test_neighbours():
    graph = topology(3, (0, 1), (0, 2), (1, 2))
    assert graph.successors(0) == [1, 2]
    assert graph.predecessors(2) == [0, 1]
    assert graph.by_name["l1"].layer_id == 1


@pytest.mark.parametrize(
    "nodes",
    [
        [{"layer_id": 1, "name": "a", "type": "Linear"}],
        [{"layer_id": 0, "name": "a", "type": "Linear"}] * 2,
        [{"layer_id": i, "name": "a", "type": "Linear"} for i in range(2)],
    ],
)
def test_ids_must_be_dense_and_names_unique(nodes):
    with pytest.raises(ValidationError, match="layer"):
        ModelTopology(run="r", nodes=nodes)


def test_an_edge_must_end_at_a_layer():
    with pytest.raises(ValidationError, match="does not exist"):
        topology(2, (0, 2))
