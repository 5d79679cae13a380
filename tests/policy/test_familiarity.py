"""What was never trained on is told apart from what was, layer by layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.graph.schema import GLOBAL_DIM, NODE_COLUMNS
from tamiyo.policy.familiarity import FAR, MOST, Familiarity, far_share
from tamiyo.policy.inputs import MaskedNormalizer
from tamiyo.policy.protocol import first_failure

COLUMNS = ("x", "x_measured", "global_features", "global_measured")
LAYERS = 40


@pytest.fixture
def topology(make_topology):
    return make_topology(LAYERS)


@pytest.fixture
def state(topology, make_state, random_readings):
    return make_state(topology, random_readings(LAYERS))


@pytest.fixture
def familiarity(state):
    """Fitted on the very state that is asked about."""
    data = state.graph_data
    nodes, run = MaskedNormalizer(data.x.shape[1]), MaskedNormalizer(data.global_features.shape[1])
    nodes.fit(data.x, data.x_measured)
    run.fit(data.global_features, data.global_measured)
    return Familiarity(nodes, run, frozenset({"linear", "relu"}))


def moved(state, layers, deviations, share=1.0):
    """The state with measured values of some layers so many deviations away."""
    data = state.graph_data
    nodes = MaskedNormalizer(data.x.shape[1])
    nodes.fit(data.x, data.x_measured)
    for layer in layers:
        measured = data.x_measured[layer].nonzero()[:, 0]
        chosen = measured[: round(share * len(measured))]
        data.x[layer, chosen] = (nodes.mean + deviations * nodes.scale)[chosen]
    return state


def failures(familiarity, state, target):
    return [check.name for check in familiarity.checks(state, target) if not check.passed]


@pytest.mark.parametrize("target", [(), (3,), (2, 8)])
def test_the_states_of_the_training_are_familiar(familiarity, state, target):
    assert failures(familiarity, state, target) == []


def test_one_odd_layer_is_not_hidden_by_the_others(familiarity, state):
    odd = moved(state, [7], FAR + 1)
    assert failures(familiarity, odd, (7,)) == ["values of the target far from training"]
    assert failures(familiarity, odd, (8,)) == []
    assert failures(familiarity, odd, ()) == []
    assert failures(familiarity, odd, (7, 8)) == ["values of the target far from training"]


@pytest.mark.parametrize(("deviations", "familiar"), [(FAR - 0.1, True), (FAR + 0.1, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_far_is_beyond_so_many_deviations(familiarity, state, deviations, familiar, sign):
    odd = moved(state, [7], sign * deviations)
    assert (failures(familiarity, odd, (7,)) == []) == familiar


@pytest.mark.parametrize(("share", "familiar"), [(0.2, True), (0.5, False)])
def test_a_few_far_values_are_no_strange_layer(familiarity, state, share, familiar):
    odd = moved(state, [7], 20, share)
    assert (failures(familiarity, odd, (7,)) == []) == familiar


def test_many_strange_layers_make_any_decision_unfamiliar(familiarity, state):
    few = round(MOST * LAYERS)
    assert failures(familiarity, moved(state, range(few), 20), ()) == []
    assert failures(familiarity, moved(state, range(few + 1), 20), ()) == [
        "layers far from training"
    ]


def test_values_of_the_run_count_by_themselves(familiarity, state):
    state.graph_data.global_features += 50.0
    assert failures(familiarity, state, (1,)) == ["values of the run far from training"]


def test_missing_values_are_not_far(familiarity, state):
    odd = moved(state, [7], 20)
    odd.graph_data.x_measured[7] = False
    assert failures(familiarity, odd, (7,)) == []


def test_a_column_that_was_never_measured_in_training_is_not_looked_at():
    norm = MaskedNormalizer(2)
    norm.fit(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[True, False], [True, False]]))
    values, measured = torch.tensor([[0.5, 1e6]]), torch.ones(1, 2, dtype=torch.bool)
    assert far_share(norm, values, measured).tolist() == [0.0]
    assert far_share(norm, values + 9.0, measured).tolist() == [1.0]


def test_what_was_always_known_in_training_must_not_be_missing(familiarity, state):
    missing = ["values of the run missing that training always had"]
    known = state.graph_data.global_measured
    always = known[0].nonzero()[:, 0]
    few = int(MOST * len(always))
    known[:, always[:few]] = False
    assert failures(familiarity, state, ()) == []
    known[:, always[few]] = False
    assert failures(familiarity, state, ()) == missing
    # It may be if it was so in training, too.
    norm = MaskedNormalizer(known.shape[1])
    rows = known.expand(2, -1).clone()
    rows[1] = True
    norm.fit(torch.zeros(rows.shape), rows)
    assert failures(replace(familiarity, global_norm=norm), state, ()) == []


def test_layers_of_unseen_types(make_topology, make_state, random_readings, familiarity, topology):
    def with_types(changes):
        nodes = tuple(
            node.model_copy(update={"type": changes.get(node.layer_id, node.type)})
            for node in topology.nodes
        )
        changed = topology.model_copy(update={"nodes": nodes})
        return make_state(changed, random_readings(LAYERS))

    one = with_types({4: "LSTM"})
    assert failures(familiarity, one, (4,)) == ["target of an unseen type"]
    assert failures(familiarity, one, (6,)) == []
    unknown = with_types({4: "SomethingOfTheirOwn"})
    assert failures(familiarity, unknown, (4,)) == ["target of an unseen type"]
    many = with_types(dict.fromkeys(range(11), "LSTM"))
    assert failures(familiarity, many, (30,)) == ["layers of unseen types"]
    assert failures(familiarity, with_types(dict.fromkeys(range(10), "LSTM")), ()) == []


def test_a_network_that_does_not_say_what_it_has_seen_knows_nothing(familiarity, state):
    ignorant = Familiarity(familiarity.node_norm, familiarity.global_norm, frozenset())
    failed = first_failure(ignorant.checks(state, ()))
    assert (failed.name, failed.value) == ("layers of unseen types", 1.0)


def observed(seed, hosts=128):
    """States of runs of Training-v0, of which half are faulty, with an action now and then."""
    env = TrainingVectorEnv(hosts, cohort_size=16)
    random = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    for _ in range(env.config.decisions):
        real = observation["node_mask"].astype(bool)
        yield {name: np.array(observation[name]) for name in COLUMNS} | {"node_mask": real}
        actions = np.zeros((hosts, 3), np.int64)
        masks = observation["action_mask"], observation["model_action_mask"][:, None]
        for host, legal in enumerate(np.concatenate(masks, axis=1).astype(bool)):
            choices = np.argwhere(legal)
            if random.random() < 0.1 and len(choices):
                actions[host] = 1, *random.choice(choices)
        observation, *_ = env.step(actions)


@pytest.mark.slow
def test_held_out_runs_of_the_training_environment_are_familiar():
    """The limits must not call in question what the policy was trained for, faults included."""
    node_norm, global_norm = MaskedNormalizer(len(NODE_COLUMNS)), MaskedNormalizer(GLOBAL_DIM)
    seen = list(observed(seed=1))
    for norm, values, measured in (
        (
            node_norm,
            *(np.concatenate([one[n][one["node_mask"]] for one in seen]) for n in COLUMNS[:2]),
        ),
        (global_norm, *(np.concatenate([one[n] for one in seen]) for n in COLUMNS[2:])),
    ):
        norm.fit(torch.from_numpy(values), torch.from_numpy(measured).bool())
    layers, runs = [], []
    for one in observed(seed=2):
        x, measured, run, run_measured = (torch.from_numpy(one[name]) for name in COLUMNS)
        far = far_share(node_norm, x, measured.bool()).numpy()
        layers.append(np.where(one["node_mask"], far, 0.0).max(axis=1))
        runs.append(far_share(global_norm, run, run_measured.bool()).numpy())
    found = [np.concatenate(shares) for shares in (layers, runs)]
    print([np.quantile(shares, [0.9, 0.99, 1.0]).round(3).tolist() for shares in found])
    assert all(np.mean(shares > MOST) < 0.005 for shares in found)
