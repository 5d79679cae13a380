import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.contracts import (
    AdaptationType,
    HealthSignal,
    ModelTopology,
    PerformanceMetrics,
    SignalBatch,
    TopologyEdge,
    TopologyNode,
)
from tamiyo.graph import ACTIONS, ModelGraphBuilder
from tamiyo.graph.schema import EDGE_DIM, GLOBAL_DIM, LAYER_TYPES, NODE_DIM

FIELDS = (
    "x",
    "x_measured",
    "edge_index",
    "edge_attr",
    "edge_measured",
    "layer_type",
    "global_features",
    "global_measured",
    "action_mask",
    "model_action_mask",
)


def report(step, **fields):
    return PerformanceMetrics(run="r", step=step, timestamp=float(step), **fields)


def test_shapes_and_masks(make_topology, make_batch):
    batch = make_batch([(0, {"health_score": 0.5})], topology=make_topology())
    data = ModelGraphBuilder().build_model_graph(batch).graph_data
    assert data.x.shape == data.x_measured.shape == (3, NODE_DIM)
    assert data.edge_attr.shape == data.edge_measured.shape == (4, EDGE_DIM)
    assert data.global_features.shape == data.global_measured.shape == (1, GLOBAL_DIM)
    assert data.action_mask.shape == (3, len(ACTIONS))
    assert data.model_action_mask.shape == (1, len(ACTIONS))
    assert data.num_nodes == 3
    for values, measured in (
        (data.x, data.x_measured),
        (data.edge_attr, data.edge_measured),
        (data.global_features, data.global_measured),
    ):
        assert values.dtype == torch.float32
        assert bool((values[~measured] == 0).all())
        assert bool(torch.isfinite(values).all())
    assert [list(LAYER_TYPES)[index] for index in data.layer_type] == ["linear", "relu", "linear"]


def test_every_edge_appears_once_each_way(make_topology, make_batch, column):
    state = ModelGraphBuilder().build_model_graph(make_batch(topology=make_topology()))
    assert state.graph_data.edge_index.tolist() == [[0, 1, 1, 2], [1, 2, 0, 1]]
    assert column(state.graph_data, "edge", "direction").tolist() == [1, 1, -1, -1]


def test_raw_readings_become_scale_free_columns(make_topology, make_batch, column):
    readings = [
        (0, {"gradient_norm": 1.0, "update_ratio": 1e-2, "dead_neuron_ratio": 0.25}),
        (1, {"gradient_norm": 10.0, "execution_latency": 3.0}),
        (2, {"gradient_norm": 100.0, "execution_latency": 1.0}),
    ]
    batch = make_batch(readings, topology=make_topology())
    data = ModelGraphBuilder().build_model_graph(batch).graph_data
    np.testing.assert_allclose(column(data, "x", "gradient_norm"), [-0.25, 0, 0.25], atol=1e-6)
    np.testing.assert_allclose(column(data, "x", "update_ratio"), [0.25, np.nan, np.nan], atol=1e-6)
    np.testing.assert_allclose(
        column(data, "x", "latency"), [np.nan, np.log10(1.5) / 4, np.log10(0.5) / 4], atol=1e-6
    )
    np.testing.assert_allclose(column(data, "x", "dead_ratio"), [0.25, np.nan, np.nan])
    np.testing.assert_allclose(column(data, "x", "depth"), [0, 0.5, 1])
    np.testing.assert_allclose(
        column(data, "edge", "gradient_flow"), [-0.25, -0.25, 0.25, 0.25], atol=1e-6
    )


def test_a_gradient_that_is_zero_everywhere_has_no_median(make_topology, make_batch, column):
    readings = [(layer, {"gradient_norm": 0.0}) for layer in range(3)]
    data = (
        ModelGraphBuilder().build_model_graph(make_batch(readings, topology=make_topology()))
    ).graph_data
    assert np.isnan(column(data, "x", "gradient_norm")).all()
    assert np.isnan(column(data, "edge", "gradient_flow")).all()


def test_scaling_every_norm_and_loss_changes_nothing(make_topology, make_batch):
    def build(scale):
        readings = [
            (layer, {"gradient_norm": scale * (layer + 1), "activation_variance": scale})
            for layer in range(3)
        ]
        losses = [report(step, loss=scale / (step + 1), loss_level=scale) for step in range(6)]
        batch = make_batch(readings, topology=make_topology(), metrics=losses)
        return ModelGraphBuilder().build_model_graph(batch).graph_data

    one, thousand = build(1.0), build(1000.0)
    torch.testing.assert_close(one.x, thousand.x)
    torch.testing.assert_close(one.edge_attr, thousand.edge_attr)
    torch.testing.assert_close(one.global_features, thousand.global_features)


def test_globals_from_reports(make_topology, make_batch, column):
    losses = [report(step, loss=10.0 ** (1 - step), loss_level=1.0) for step in range(5)]
    latest = report(9, loss=0.1, loss_level=1.0, validation_accuracy=0.75, snapshot_step=3)
    batch = make_batch(topology=make_topology(), metrics=[*losses, latest])
    data = (
        ModelGraphBuilder().build_model_graph(batch, budget_used=0.5, steps_since_adaptation=9)
    ).graph_data
    expected = {
        "loss_level": -0.25,
        "loss_since_start": -0.5,
        "validation_accuracy": 0.75,
        "has_snapshot": 1.0,
        "loss_nonfinite": 0.0,
        "budget_used": 0.5,
        "since_adaptation": 0.2,
        "validation_trend": np.nan,
        "progress": np.nan,
        "seen_layers": 0.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(column(data, "global", name), [value], atol=1e-6, err_msg=name)
    assert column(data, "global", "loss_trend")[0] < -0.5


def test_restore_is_legal_only_with_a_snapshot(make_topology, make_batch):
    restore = ACTIONS.index(AdaptationType.RESTORE)
    builder, topology = ModelGraphBuilder(), make_topology()

    def legal(metrics):
        batch = make_batch(topology=topology, metrics=metrics)
        return bool(builder.build_model_graph(batch).graph_data.model_action_mask[0, restore])

    assert not legal([])
    assert not legal([report(1, snapshot_step=1), report(2)])
    assert legal([report(1), report(2, snapshot_step=1)])


def test_without_topology_the_layers_seen_are_nodes_without_edges(make_batch):
    batch = make_batch([(7, {"health_score": 0.1}), (3, {"health_score": 0.9})])
    state = ModelGraphBuilder().build_model_graph(batch)
    assert state.layer_ids.tolist() == [3, 7]
    assert state.graph_data.edge_index.shape == (2, 0)
    assert not state.graph_data.action_mask.any()
    assert state.problematic_layers == (7,)
    assert state.run is None


def test_no_signals_with_a_topology_is_all_missing(make_topology, make_batch, column):
    state = ModelGraphBuilder().build_model_graph(make_batch(topology=make_topology()))
    for name in ("health", "gradient_norm", "error_rate", "ready", "stability"):
        assert np.isnan(column(state.graph_data, "x", name)).all()
    assert not state.seen.any()
    assert np.isnan(state.timestamp)
    assert state.problematic_layers == ()


def test_nothing_at_all_is_an_error(make_batch):
    with pytest.raises(ValueError, match="no signals and no topology"):
        ModelGraphBuilder().build_model_graph(make_batch())


def test_a_topology_without_layers_is_an_error(make_batch):
    with pytest.raises(ValueError, match="no layers"):
        ModelGraphBuilder().build_model_graph(make_batch(), ModelTopology(run="r", nodes=()))


@pytest.mark.parametrize("dims", [(15, 8), (16, 9)])
def test_other_dimensions_are_refused(dims):
    with pytest.raises(ValueError, match="16 node and 8 edge"):
        ModelGraphBuilder(*dims)


def test_a_bad_window_or_threshold_is_refused(make_topology, make_batch):
    with pytest.raises(ValueError, match="health_threshold"):
        ModelGraphBuilder(health_threshold=2.0)
    with pytest.raises(ValueError, match="window_size"):
        ModelGraphBuilder().build_model_graph(make_batch(), make_topology(), 0)


def test_signals_of_unknown_layers_are_ignored_and_counted(make_topology, make_batch):
    readings = [(0, {"health_score": 0.5}), (9, {"health_score": 0.0}), (9, {})]
    state = ModelGraphBuilder().build_model_graph(make_batch(readings, topology=make_topology()))
    assert state.ignored_signals == 2
    assert state.seen.tolist() == [True, False, False]
    assert state.problematic_layers == ()


def test_one_node_and_a_cycle(make_topology, make_batch, column):
    single = make_topology(edges=(), types=("Linear",))
    data = ModelGraphBuilder().build_model_graph(make_batch(topology=single)).graph_data
    assert np.isnan(column(data, "x", "depth")).all()
    looped = make_topology(edges=((0, 1), (1, 0), (1, 1)), types=("Linear", "Linear"))
    data = ModelGraphBuilder().build_model_graph(make_batch(topology=looped)).graph_data
    assert data.edge_index.shape == (2, 6)
    assert bool(torch.isfinite(data.edge_attr).all())


def test_the_given_topology_wins_over_the_announced_one(make_topology, make_batch):
    batch = make_batch(topology=make_topology())
    given = make_topology(edges=(), types=("Linear",))
    assert ModelGraphBuilder().build_model_graph(batch, given).topology is given


def test_aggregates_win_over_thinned_signals(make_topology, make_batch):
    full = make_batch(
        [(0, {"health_score": value}) for value in (0.2, 0.4)],
        topology=make_topology(),
        aggregated=True,
    )
    thinned = full[:1]
    state = ModelGraphBuilder().build_model_graph(thinned)
    assert state.layers["health_score_mean"][0] == pytest.approx(0.3)
    assert state.health_trends[0].tolist() == pytest.approx([0.2])


def test_window_bounds_the_signals_per_layer(make_topology, make_batch):
    batch = make_batch([(0, {"health_score": value}) for value in (0.0, 0.4, 0.6)])
    state = ModelGraphBuilder().build_model_graph(batch, window_size=2)
    assert state.layers["health_score_mean"][0] == pytest.approx(0.5)


def test_health_trends_are_in_time_order_and_skip_what_is_not_measured(make_batch):
    readings = [(1, {"health_score": 0.1}), (0, {}), (1, {}), (1, {"health_score": 0.3})]
    trends = ModelGraphBuilder().build_model_graph(make_batch(readings)).health_trends
    assert list(trends) == [1]
    assert trends[1].tolist() == pytest.approx([0.1, 0.3])


def test_a_second_graph_of_the_same_topology_is_not_touched_by_the_first(make_topology, make_batch):
    builder, batch = ModelGraphBuilder(), make_batch(topology=make_topology())
    first = builder.build_model_graph(batch).graph_data
    for name in FIELDS:
        first[name].zero_()
    second = builder.build_model_graph(batch).graph_data
    fresh = ModelGraphBuilder().build_model_graph(batch).graph_data
    for name in FIELDS:
        assert torch.equal(second[name], fresh[name]), name


measurement = st.one_of(st.just(float("nan")), st.floats(0, 1e6, width=32))
signals = st.builds(
    HealthSignal,
    layer_id=st.integers(0, 7),
    epoch=st.integers(0, 3),
    step=st.integers(0, 1000),
    timestamp=st.floats(0, 1e6),
    health_score=st.one_of(st.just(float("nan")), st.floats(0, 1, width=32)),
    activation_variance=measurement,
    gradient_norm=measurement,
    update_ratio=measurement,
    execution_latency=measurement,
    error_count=st.integers(0, 5),
    total_seeds=st.integers(0, 3),
)
edges = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(signals, max_size=12), edges)
def test_whatever_is_sent_the_graph_is_finite_bounded_and_masked(sent, links):
    topology = ModelTopology(
        run="r",
        nodes=tuple(TopologyNode(layer_id=i, name=str(i), type="Linear") for i in range(5)),
        edges=tuple(TopologyEdge(source=source, target=target) for source, target in links),
    )
    state = ModelGraphBuilder().build_model_graph(SignalBatch.from_signals(sent), topology)
    data = state.graph_data
    for values, measured in (
        (data.x, data.x_measured),
        (data.edge_attr, data.edge_measured),
        (data.global_features, data.global_measured),
    ):
        assert bool(torch.isfinite(values).all())
        assert float(values.abs().max()) <= 1 if values.numel() else True
        assert bool((values[~measured] == 0).all())
    known = sum(signal.layer_id < 5 for signal in sent)
    assert state.ignored_signals == len(sent) - known
