"""The states that the rules read hold the graphs that the environment shows to a network."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tamiyo.bench.evaluation.players import RandomPlayer
from tamiyo.bench.evaluation.run_states import RunStates
from tamiyo.contracts import AdaptationType, Flag
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.sensing import SensingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.graph.schema import ACTIONS

CONFIG = TrainingConfig(decisions=12, interval=5, max_hidden=4, widths=(16,), held_out=64)
VARIED = replace(
    CONFIG,
    scheduled=0.5,
    sensing=SensingConfig(
        readings=(1, 3),
        leads=(0, 2),
        windows=(4, 100),
        reports_every=(1, 3, 20),
        budgets=(6, 50),
        held_out_unknown=0.5,
        length_unknown=0.5,
    ),
)
RUNS = 16


def moments(seed, config=CONFIG):
    """Observations and states of an episode in which each run is adapted at random."""
    env = TrainingVectorEnv(RUNS, config=config, cohort_size=8)
    observation, _ = env.reset(seed=seed)
    player = RandomPlayer()
    player.begin(env, seed)
    runs = [RunStates(episode, str(place)) for place, episode in enumerate(env.episodes)]
    for _ in range(config.decisions):
        yield observation, [state for one in runs for state in one.read()]
        observation, *_ = env.step(player.act(env, observation).actions)


@pytest.fixture(scope="module")
def seen():
    return [moment for seed in (0, 1, 2) for moment in moments(seed)]


@pytest.fixture(scope="module")
def seen_in_all_ways(seen):
    """Likewise, of runs that are watched in different ways as well."""
    return [*seen, *(moment for seed in (3, 4, 5) for moment in moments(seed, VARIED))]


@pytest.mark.parametrize(
    ("values", "measured", "exists"),
    [
        ("x", "x_measured", "node_mask"),
        ("edge_attr", "edge_measured", "edge_mask"),
        ("global_features", "global_measured", None),
    ],
)
def test_every_feature_is_that_of_the_observation(seen_in_all_ways, values, measured, exists):
    for observation, states in seen_in_all_ways:
        for run, state in enumerate(states):
            real = slice(None) if exists is None else observation[exists][run].astype(bool)
            data = state.graph_data
            known = data[measured].numpy().squeeze(0 if exists is None else ())
            np.testing.assert_array_equal(observation[measured][run][real], known)
            shown = data[values].numpy().squeeze(0 if exists is None else ())
            np.testing.assert_allclose(observation[values][run][real], shown, atol=1e-6)


def test_structure_types_and_masks_are_those_of_the_observation(seen_in_all_ways):
    for observation, states in seen_in_all_ways:
        for run, state in enumerate(states):
            data, nodes = state.graph_data, len(state.layer_ids)
            edges = observation["edge_mask"][run].astype(bool)
            assert observation["node_mask"][run].sum() == nodes
            for name, shown in (
                ("layer_type", observation["layer_type"][run, :nodes]),
                ("edge_index", observation["edge_index"][run][:, edges]),
                ("action_mask", observation["action_mask"][run, :nodes]),
                ("model_action_mask", observation["model_action_mask"][run][None]),
            ):
                np.testing.assert_array_equal(data[name].numpy(), shown, err_msg=name)


def test_reports_grow_by_one_a_decision(seen):
    for place, (_, states) in enumerate(seen):
        moment = place % CONFIG.decisions
        for state in states:
            assert len(state.metrics) == moment + 1
            assert state.step == state.metrics[-1].step == CONFIG.interval * (moment + 1)


def test_a_topology_is_the_same_object_while_nothing_changes(seen):
    same = changed = 0
    for (_, before), (_, after) in pairwise(seen[: CONFIG.decisions]):
        for one, other in zip(before, after, strict=True):
            alike = (one.graph_data.action_mask == other.graph_data.action_mask).all()
            if one.topology is other.topology:
                assert alike
                same += 1
            changed += not alike
    assert same > 0
    assert changed > 0


@pytest.mark.parametrize("window", [100, 2])
def test_what_became_nan_is_flagged_in_the_layers_and_in_the_report(window):
    config = TrainingConfig(
        sensing=SensingConfig(windows=(window,)),
        decisions=12,
        interval=5,
        max_hidden=2,
        widths=(16,),
        held_out=64,
        faults=(FaultKind.NOT_A_NUMBER,),
        faulty=1.0,
    )
    env = TrainingVectorEnv(8, config=config)
    _, infos = env.reset(seed=0)
    states, flagged = RunStates(env.episodes[0], "nan"), 0
    idle = np.zeros((8, 3), np.int64)
    for _ in range(config.decisions):
        for run, state in enumerate(states.read()):
            broken = (state.layers["nonfinite_last"] & int(Flag.NONFINITE_WEIGHT)).any()
            assert broken == infos["struck"][run]
            assert (state.metrics[-1].loss_nonfinite > 0) <= broken
            flagged += broken
        *_, infos = env.step(idle)
    assert flagged > 8


def test_restoring_is_offered_exactly_while_there_is_a_snapshot(seen):
    column = ACTIONS.index(AdaptationType.RESTORE)
    offered = [
        (bool(state.graph_data.model_action_mask[0, column]), state.metrics[-1].snapshot_step)
        for _, states in seen
        for state in states
    ]
    assert {legal for legal, _ in offered} == {True, False}
    # Nothing at all is legal once the budget is spent, but these runs are adapted once.
    assert all(legal == (step is not None) for legal, step in offered)
