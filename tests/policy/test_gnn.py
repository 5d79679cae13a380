import itertools

import pytest
import torch

from tamiyo.graph import ACTIONS, _pyg
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig
from tamiyo.policy.actions import Action
from tamiyo.policy.heads import sample_unit_masks

PER_GRAPH = (
    "adaptation_prob",
    "model_priority",
    "model_type_logits",
    "urgency_score",
    "risk_assessment",
    "safety_score",
    "value_estimate",
    "uncertainty",
    "epistemic_confidence",
)


@pytest.fixture
def states(make_topology, make_state, random_readings):
    """Different sizes; the second ends in an isolated node."""
    sizes = ((5, 0), (4, 1), (1, 0))
    return [
        make_state(make_topology(layers, isolated=isolated), random_readings(layers, seed=layers))
        for layers, isolated in sizes
    ]


def test_shapes_and_ranges(make_network, states):
    data = _pyg.Batch.from_data_list([state.graph_data for state in states])
    with torch.no_grad():
        outputs = make_network()(data, uncertainty=True)
    for name in PER_GRAPH:
        assert len(outputs[name]) == 3, name
    assert outputs["layer_priority"].shape == (11,)
    assert outputs["type_logits"].shape == (11, len(ACTIONS))
    for name in PER_GRAPH:
        if name not in {"model_type_logits", "value_estimate"}:
            assert 0 <= float(outputs[name].min()) <= float(outputs[name].max()) <= 1, name
    for trend in outputs["temporal_analysis"].values():
        assert trend.shape == (3,)
        assert float(trend.abs().max()) <= 1


def test_priorities_of_layers_and_model_are_one_distribution_per_graph(make_network, states):
    data = _pyg.Batch.from_data_list([state.graph_data for state in states])
    outputs = make_network()(data)
    layers = torch.zeros(3).index_add(0, data.batch, outputs["layer_priority"])
    torch.testing.assert_close(layers + outputs["model_priority"], torch.ones(3))


def test_a_batch_equals_its_graphs_one_by_one(make_network, states):
    network = make_network()
    data = _pyg.Batch.from_data_list([state.graph_data for state in states])
    together = network(data, uncertainty=True)
    alone = [network(state.graph_data, uncertainty=True) for state in states]
    for name in (*PER_GRAPH, "layer_priority", "type_logits"):
        expected = torch.cat([outputs[name] for outputs in alone])
        torch.testing.assert_close(together[name], expected, rtol=1e-5, atol=1e-5, msg=name)
    action = Action(
        torch.tensor([True, True, False]), torch.tensor([4, -1, -1]), torch.tensor([3, 7, 0])
    )
    joint = together["distribution"].log_prob(action)
    for index, outputs in enumerate(alone):
        here = slice(index, index + 1)
        single = Action(action.adapt[here], action.target[here], action.type[here])
        torch.testing.assert_close(
            joint[here], outputs["distribution"].log_prob(single), rtol=0, atol=1e-5
        )


def test_permuting_the_layers_permutes_the_outputs(make_network, states):
    network, data = make_network(), states[0].graph_data
    order = torch.tensor([3, 0, 4, 2, 1])
    place = order.argsort()
    permuted = data.clone()
    for name in ("x", "x_measured", "layer_type", "action_mask"):
        permuted[name] = data[name][order]
    permuted.edge_index = place[data.edge_index]
    first, second = network(data, uncertainty=True), network(permuted, uncertainty=True)
    for name in PER_GRAPH:
        torch.testing.assert_close(second[name], first[name], rtol=1e-5, atol=1e-5)
    for name in ("layer_priority", "type_logits"):
        torch.testing.assert_close(second[name], first[name][order], rtol=1e-5, atol=1e-5)


def test_layers_without_legal_actions_get_probability_and_gradient_zero(make_network, states):
    network, data = make_network(), states[0].graph_data.clone()
    data.action_mask[1] = False
    outputs = network(data)
    assert outputs["layer_priority"][1] == 0
    assert bool((outputs["type_logits"][1] == -torch.inf).all())
    score = outputs["distribution"].target_score
    (gradient,) = torch.autograd.grad(outputs["layer_priority"][0], score)
    assert gradient[1] == 0
    assert gradient[0] != 0


def test_a_missing_value_has_no_influence_and_its_absence_has(make_network, states):
    network, data = make_network(), states[0].graph_data
    hidden = data.clone()
    hidden.x[0, 3] = 0.9
    hidden.x_measured[0, 3] = False
    other = hidden.clone()
    other.x[0, 3] = -0.4
    torch.testing.assert_close(
        network(hidden)["value_estimate"], network(other)["value_estimate"], rtol=0, atol=0
    )
    assert network(hidden)["value_estimate"] != network(data)["value_estimate"]


def test_edge_features_and_messages_matter(make_network, states):
    network, data = make_network(), states[0].graph_data
    before = network(data)["layer_priority"]
    edited = data.clone()
    edited.edge_attr = edited.edge_attr + 1.0
    edited.edge_measured = torch.ones_like(edited.edge_measured)
    cut = data.clone()
    cut.edge_index, cut.edge_attr = cut.edge_index[:, :0], cut.edge_attr[:0]
    cut.edge_measured = cut.edge_measured[:0]
    for changed in (edited, cut):
        assert bool(((network(changed)["layer_priority"] - before).abs() > 1e-5).any())


def test_doing_nothing_trains_no_target_or_type_head(make_network, states):
    network = make_network()
    distribution = network(states[0].graph_data)["distribution"]
    nothing = Action(torch.tensor([False]), torch.tensor([-1]), torch.tensor([0]))
    distribution.log_prob(nothing).backward()
    for name, parameter in network.named_parameters():
        if name.startswith("heads.candidate"):
            assert parameter.grad is None or bool((parameter.grad == 0).all()), name
    assert any(
        parameter.grad is not None and bool((parameter.grad != 0).any())
        for name, parameter in network.named_parameters()
        if name.startswith("trunk.blocks")
    )


def test_nothing_is_dropped_outside_the_uncertainty_path(make_network, states):
    network, data = make_network(attention_dropout=0.5), states[0].graph_data
    network.train()
    first, second = network(data), network(data)
    assert torch.equal(first["layer_priority"], second["layer_priority"])
    network.eval()
    assert torch.equal(first["layer_priority"], network(data)["layer_priority"])


def test_uncertainty_leaves_mode_and_global_randomness_alone(make_network, states):
    network, data = make_network(), states[0].graph_data
    for training in (True, False):
        network.train(training)
        before = torch.get_rng_state()
        first = network(data, uncertainty=True)
        assert torch.equal(before, torch.get_rng_state())
        assert all(module.training is training for module in network.modules())
        assert torch.equal(first["uncertainty"], network(data, uncertainty=True)["uncertainty"])


def test_uncertainty_is_zero_without_dropout_and_changes_with_the_generator(make_network, states):
    data = states[0].graph_data
    still = make_network(attention_dropout=0.0)(data, uncertainty=True)
    torch.testing.assert_close(still["uncertainty"], torch.zeros(1), rtol=0, atol=1e-6)
    network = make_network(attention_dropout=0.3)
    seeded = [
        network(data, uncertainty=True, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    ]
    assert seeded[0]["uncertainty"] != seeded[1]["uncertainty"]
    assert bool(seeded[0]["uncertainty"] > 0)


def test_sampled_heads_equal_a_loop_over_masks(make_network):
    head = make_network().heads.head("adaptation")
    units = torch.randn(6, 16)
    masks = sample_unit_masks(4, 16, 0.4, torch.Generator().manual_seed(0))
    looped = torch.stack([head.last(units * mask) for mask in masks], dim=1)
    torch.testing.assert_close(head.sampled(units, masks), looped, rtol=1e-5, atol=1e-6)


def test_unit_masks_keep_the_mean():
    masks = sample_unit_masks(200, 200, 0.25, torch.Generator().manual_seed(0))
    assert masks.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(masks.mean()) == pytest.approx(1.0, abs=0.01)


def test_every_parameter_is_trained_by_some_output(make_network, states):
    network = make_network()
    outputs = network(states[0].graph_data)
    action = Action(torch.tensor([True]), torch.tensor([0]), torch.tensor([3]))
    whole = Action(torch.tensor([True]), torch.tensor([-1]), torch.tensor([7]))
    distribution = outputs["distribution"]
    loss = (
        distribution.log_prob(action)
        + distribution.log_prob(whole)
        + outputs["urgency_score"]
        + outputs["risk_assessment"]
        + outputs["safety_score"]
        + outputs["value_estimate"]
    ).sum() + sum(value.sum() for value in outputs["temporal_analysis"].values())
    loss.backward()
    without = [name for name, value in network.named_parameters() if value.grad is None]
    assert without == []


def test_the_gate_starts_at_six_to_four(make_network):
    for block in make_network().trunk.blocks:
        assert block.gate.sigmoid().item() == pytest.approx(0.6)


def test_a_fresh_network_leans_towards_leaving_the_run_alone(states):
    config = PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2)
    for state in states:
        outputs = EnhancedTamiyoPolicyGNN(config)(state.graph_data)
        assert bool(outputs["adaptation_prob"] < 0.3)


def test_it_can_learn_to_point_at_the_sick_layer(make_network, make_topology, make_state):
    """A few dozen gradient steps on the log-probability must find the layer that is ill."""
    network, topology = make_network(), make_topology(5)
    data, targets = [], []
    for sick, seed in itertools.product((0, 2, 4), range(4)):
        readings = {layer: {"health_score": 0.9 - 0.01 * seed} for layer in range(5)}
        readings[sick] = {"health_score": 0.1}
        data.append(make_state(topology, readings).graph_data)
        targets.append(sick)
    batch = _pyg.Batch.from_data_list(data)
    action = Action(torch.ones(12, dtype=torch.bool), torch.tensor(targets), torch.full((12,), 4))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        (-network(batch)["distribution"].log_prob(action).mean()).backward()
        optimizer.step()
    mode = network(batch)["distribution"].mode()
    assert mode.target.tolist() == targets
    assert bool(mode.adapt.all())
    assert mode.type.tolist() == [4] * 12


def test_a_type_without_training_is_seen_as_its_kin_once_it_is_adopted(
    make_network, make_topology, make_state, random_readings
):
    network = make_network()
    topology = make_topology(6)
    readings = random_readings(6)

    def outputs(kind):
        nodes = [node.model_copy(update={"type": kind}) for node in topology.nodes]
        changed = topology.model_copy(update={"nodes": tuple(nodes)})
        with torch.no_grad():
            return network(make_state(changed, readings).graph_data)["layer_priority"]

    before = outputs("Linear")
    assert not torch.equal(outputs("Conv2d"), before)
    # Nothing is known of linear layers either, or convolutions were trained on.
    assert network.adopt_kin(["relu"]) == network.adopt_kin(["linear", "conv"]) == {}
    assert not torch.equal(outputs("Conv2d"), before)
    assert network.adopt_kin(["linear", "relu"]) == {"conv": "linear"}
    torch.testing.assert_close(outputs("Conv2d"), before, rtol=0, atol=0)
    torch.testing.assert_close(outputs("Linear"), before, rtol=0, atol=0)
    assert not torch.equal(outputs("LSTM"), before)
