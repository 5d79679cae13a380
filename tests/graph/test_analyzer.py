import numpy as np
import pytest

from tamiyo.contracts import Flag, ModelTopology, TopologyEdge, TopologyNode
from tamiyo.graph import ModelGraphAnalyzer, ModelGraphBuilder


@pytest.fixture
def analyze(make_batch):
    def make(readings, topology=None, **arguments):
        state = ModelGraphBuilder().build_model_graph(make_batch(readings, topology=topology))
        return ModelGraphAnalyzer(state, **arguments)

    return make


def ids(layers):
    return [layer.layer_id for layer in layers]


def test_a_layer_shows_what_was_measured_and_who_its_neighbours_are(analyze, make_topology):
    readings = [(1, {"health_score": 0.8, "dead_neuron_ratio": 0.2})]
    layer = analyze(readings, make_topology()).layers[1]
    assert (layer.name, layer.type, layer.parameters) == ("1", "ReLU", 0)
    assert layer.health == pytest.approx(0.8)
    assert layer.measurements["dead_neuron_ratio"] == pytest.approx(0.2)
    assert np.isnan(layer.measurements["gradient_norm"])
    assert (layer.predecessors, layer.successors) == ((0,), (2,))
    assert layer.step == 10


def test_layers_never_seen_or_never_announced_say_so(analyze, make_topology):
    layer = analyze([], make_topology()).layers[0]
    assert layer.step is None
    assert np.isnan(layer.health)
    layer = analyze([(4, {})]).layers[4]
    assert (layer.name, layer.type, layer.parameters) == ("layer 4", "", None)


def test_problematic_layers_come_worst_first_and_non_finite_ones_before_all(analyze, make_topology):
    readings = [
        (0, {"health_score": 0.2}),
        (1, {"health_score": 0.9, "flags": Flag.NONFINITE_WEIGHT}),
        (2, {"health_score": 0.1}),
    ]
    analyzer = analyze(readings, make_topology())
    assert ids(analyzer.problematic) == [1, 2, 0]
    assert ids(analyze(readings, make_topology(), health_threshold=0.15).problematic) == [1, 2]


def test_suspects_are_the_problematic_layers_above_which_nothing_is(analyze, make_topology):
    topology = make_topology(edges=((0, 1), (1, 2), (2, 3), (3, 4)), types=("Linear",) * 5)
    readings = [(layer, {"health_score": 0.1 if layer in {1, 3} else 0.9}) for layer in range(5)]
    analyzer = analyze(readings, topology)
    assert ids(analyzer.upstream_suspects(4)) == [1]
    assert ids(analyzer.upstream_suspects(1)) == [1]
    assert ids(analyzer.upstream_suspects(0)) == []


def test_suspects_on_a_cycle_are_found(analyze, make_topology):
    topology = make_topology(edges=((0, 1), (1, 0)), types=("Linear", "Linear"))
    readings = [(layer, {"health_score": 0.1}) for layer in range(2)]
    assert ids(analyze(readings, topology).upstream_suspects(1)) == [0]


def test_ancestors_and_descendants(analyze, make_topology):
    analyzer = analyze([], make_topology())
    assert analyzer.ancestors(2) == {0, 1}
    assert analyzer.descendants(0) == {1, 2}


def test_the_critical_path_follows_latency_through_branches(analyze, make_topology):
    topology = make_topology(edges=((0, 1), (0, 2), (1, 3), (2, 3)), types=("Linear",) * 4)
    readings = [(layer, {"execution_latency": cost}) for layer, cost in enumerate((1, 5, 2, 1))]
    assert ids(analyze(readings, topology).critical_path()) == [0, 1, 3]
    assert analyze([], topology).critical_path() == []
    assert analyze(readings).critical_path() == []


def test_a_bottleneck_is_narrower_than_what_is_before_and_after(analyze):
    def chain(*widths):
        nodes = []
        for index, width in enumerate(widths):
            kind, parameters = ("ReLU", 0) if index % 2 else ("Linear", 10)
            nodes.append(
                TopologyNode(
                    layer_id=index,
                    name=str(index),
                    type=kind,
                    parameters=parameters,
                    shape=(width,),
                )
            )
        edges = tuple(TopologyEdge(source=i, target=i + 1) for i in range(len(widths) - 1))
        return ModelTopology(run="r", nodes=tuple(nodes), edges=edges)

    assert ids(analyze([], chain(64, 64, 2, 2, 64, 64, 10)).bottlenecks) == [2]
    assert ids(analyze([], chain(64, 64, 32, 32, 16, 16, 10)).bottlenecks) == []
