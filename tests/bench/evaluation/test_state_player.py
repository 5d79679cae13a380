"""The rules play by the environment's clock, and several layers take several decisions."""

import numpy as np
import pytest

from tamiyo.bench.evaluation.run_states import RunStates
from tamiyo.bench.evaluation.state_player import StatePlayer, rules_config
from tamiyo.contracts import AdaptationType
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy import RulesPolicy, Verdict
from tamiyo.policy.proposal import Proposal, to_decision

BROKEN = TrainingConfig(
    decisions=14,
    interval=10,
    max_hidden=2,
    widths=(16,),
    held_out=64,
    faults=(FaultKind.NOT_A_NUMBER,),
    faulty=1.0,
)


def test_a_decision_may_follow_the_reading_after_the_last_one():
    config = rules_config(BROKEN)
    assert config.max_adaptations_per_epoch == BROKEN.max_adaptations
    assert config.budget_window_steps == BROKEN.most_steps
    # A reading an interval later is fresh, and the cooldown is over by then.
    assert config.decision_ttl_steps < BROKEN.interval
    assert config.cooldown_steps <= BROKEN.interval


def test_what_became_nan_is_restored_at_once():
    env = TrainingVectorEnv(8, config=BROKEN)
    observation, infos = env.reset(seed=1)
    player = StatePlayer("rules", RulesPolicy)
    player.begin(env, 0)
    legal, restored = np.zeros(8, bool), np.zeros(8, bool)
    column = ACTIONS.index(AdaptationType.RESTORE)
    for _ in range(BROKEN.decisions):
        due = infos["struck"] & observation["model_action_mask"][:, column].astype(bool)
        actions = player.act(env, observation).actions
        first = due & ~legal
        assert (actions[first] == [1, observation["node_mask"].shape[1], column]).all()
        legal |= due
        restored |= actions[:, 0] == 1
        observation, _, _, _, infos = env.step(actions)
    assert legal.sum() >= 4
    np.testing.assert_array_equal(restored, legal)
    # The last weights were taken back from before they broke.
    assert np.isfinite(infos["loss"][legal]).all()


class _EveryActivation(RulesPolicy):
    """Changes all activations of a network in one decision."""

    def decide(self, state):
        column = ACTIONS.index(AdaptationType.CHANGE_ACTIVATION)
        able = np.flatnonzero(state.graph_data.action_mask[:, column]).tolist()
        target = tuple(layer for layer in able if layer % 2)
        proposal = Proposal(AdaptationType.CHANGE_ACTIVATION, target, "a test")
        return Verdict(to_decision(proposal, state, "x", "1", 9) if target else None, "a test")


def test_a_decision_for_several_layers_takes_as_many_decisions(small_split):
    env = TrainingVectorEnv(8, config=small_split.config)
    observation, _ = env.reset(seed=4)  # not a cohort of leaky rectifiers
    player = StatePlayer("x", _EveryActivation)
    player.begin(env, 0)
    layers, done = (observation["node_mask"].sum(axis=1) - 1) // 2, np.zeros(8)
    for moment in range(5):
        actions = player.act(env, observation).actions
        np.testing.assert_array_equal(actions[:, 0], moment < layers)
        np.testing.assert_array_equal(actions[actions[:, 0] == 1, 1], 2 * moment + 1)
        observation, _, _, _, infos = env.step(actions)
        done += infos["adapted"]
    np.testing.assert_array_equal(done, layers)
    leaky = {node.type for node in RunStates(env.episodes[0], "r").read()[0].topology.nodes}
    assert leaky == {"Linear", "LeakyReLU"}


@pytest.mark.slow
def test_runs_of_other_processes_are_refused(small_split):
    env = TrainingVectorEnv(4, config=small_split.config, cohort_size=2, workers=2)
    try:
        env.reset(seed=0)
        with pytest.raises(ValueError, match="workers=1"):
            StatePlayer("rules", RulesPolicy).begin(env, 0)
    finally:
        env.close()
