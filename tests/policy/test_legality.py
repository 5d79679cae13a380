"""A learned policy chooses only from what can work now, and from what it had to choose from."""

import pytest
import torch

from tamiyo.contracts import AdaptationType, Flag
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.checkpoint import CheckpointError
from tamiyo.policy.inputs import GraphInputs
from tamiyo.policy.legality import narrowed

PRUNE, REINITIALIZE, NORMALIZE, SCALE = (
    ACTIONS.index(name)
    for name in ("prune", "reinitialize", "insert_normalization", "scale_learning_rate")
)
NOTHING = torch.zeros(len(ACTIONS), dtype=torch.bool)


@pytest.fixture
def topology(make_topology):
    return make_topology(5)


def narrow(state, offered=NOTHING):
    """[6, types]: what is legal for the five layers, and for the model as a whole."""
    return narrowed(GraphInputs.from_data(state.graph_data), state, offered).legal


def test_only_layers_with_dead_units_can_be_pruned(topology, make_state):
    dead = {0: {"dead_neuron_ratio": 0.0}, 2: {"dead_neuron_ratio": 0.25}, 4: {}}
    state = make_state(topology, dead)
    before = state.graph_data.action_mask.clone()
    mask = narrow(state)[:5]
    assert before[:, PRUNE].tolist() == [True, False, True, False, True]
    assert mask[:, PRUNE].tolist() == [False, False, True, False, False]
    others = [index for index in range(len(ACTIONS)) if index != PRUNE]
    assert torch.equal(mask[:, others], before[:, others])
    assert torch.equal(state.graph_data.action_mask, before)


def test_a_layer_whose_activity_is_not_finite_cannot_be_recycled(topology, make_state):
    flags = {
        0: {"flags": Flag.NONFINITE_ACTIVATION},
        2: {"flags": Flag.NONFINITE_GRADIENT},
        4: {},
    }
    mask = narrow(make_state(topology, flags))[:5]
    assert mask[:, REINITIALIZE].tolist() == [False, False, True, False, True]


def test_what_was_never_offered_is_not_legal(topology, make_state):
    state = make_state(topology, {0: {"dead_neuron_ratio": 0.5}})
    offered = NOTHING.clone()
    offered[[PRUNE, SCALE]] = True
    mask = narrow(state, offered)
    assert mask[:5].any(0).nonzero()[:, 0].tolist() == [PRUNE]
    assert mask[5].nonzero()[:, 0].tolist() == [SCALE]


def trained(network, data):
    """One step on a graph, as a learner does it."""
    network(data)["distribution"].adapt_log_prob.sum().backward()
    return network


def data_with(state, layer_actions, model_actions=()):
    data = state.graph_data.clone()
    data.action_mask[:] = False
    data.action_mask[0, list(layer_actions)] = True
    data.model_action_mask[:] = False
    data.model_action_mask[0, list(model_actions)] = True
    return data


def test_a_checkpoint_says_what_the_network_had_to_choose_from(
    make_network, topology, make_state, tmp_path
):
    state = make_state(topology)
    network = trained(make_network(), data_with(state, [REINITIALIZE], [SCALE]))
    trained(network, data_with(state, [PRUNE]))
    # Looking at graphs is no training.
    with torch.no_grad():
        network(data_with(state, [NORMALIZE]))
    network.save_pretrained(tmp_path, {"command": "test"})
    loaded = EnhancedTamiyoPolicyGNN.from_pretrained(tmp_path)
    assert loaded.training_notes["adaptations"] == ["prune", "reinitialize", "scale_learning_rate"]
    loaded(data_with(state, [NORMALIZE]))
    loaded.save_pretrained(tmp_path / "again", {"command": "test"})
    again = EnhancedTamiyoPolicyGNN.from_pretrained(tmp_path / "again")
    assert torch.equal(again.offered, network.offered)
    assert "offered" not in network.state_dict()


@pytest.mark.parametrize("known", [True, False])
def test_what_was_never_offered_is_never_decided(
    make_network, topology, make_state, tmp_path, known
):
    network = make_network()
    state = make_state(topology)
    if known:
        trained(network, data_with(state, [REINITIALIZE]))
    with torch.no_grad():
        for head in ("adapt", "safety"):
            network.heads.head(head).last.weight.zero_()
            network.heads.head(head).last.bias.fill_(8.0)
        # What an untrained output says may well be louder than what was learned.
        network.heads.head("adaptation").last.bias[[NORMALIZE, SCALE]] = 50.0
    network.save_pretrained(tmp_path, {"command": "test"})
    decision = EnhancedTamiyoPolicyGNN.from_pretrained(tmp_path).make_decision(state)
    loud = {AdaptationType.INSERT_NORMALIZATION, AdaptationType.SCALE_LEARNING_RATE}
    assert decision.adaptation in ({AdaptationType.REINITIALIZE} if known else loud)


def test_a_checkpoint_that_names_something_else_is_refused(make_network, tmp_path):
    make_network().save_pretrained(tmp_path, {"adaptations": ["wish"]})
    with pytest.raises(CheckpointError, match="wish"):
        EnhancedTamiyoPolicyGNN.from_pretrained(tmp_path)
