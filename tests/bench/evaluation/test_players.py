"""Players that need no network, and what all of them have to keep to."""

from collections import Counter

import numpy as np
import pytest

from tamiyo.bench.evaluation.players import (
    WIDEN,
    GrowingPlayer,
    IdlePlayer,
    OraclePlayer,
    RandomPlayer,
)
from tamiyo.bench.evaluation.rows import NEVER, accepted
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.vector_env import TrainingVectorEnv

KINDS = tuple(FaultKind)


def follow(split, player, seed=0, runs=16):
    """Observation, actions and what was done, of one episode."""
    env = TrainingVectorEnv(runs, config=split.config, cohort_size=8)
    observation, infos = env.reset(seed=seed)
    player.begin(env, seed)
    for _ in range(split.config.decisions):
        widths = np.concatenate([one.graphs.widths(one.cohort) for one in env.episodes])
        actions = player.act(env, observation).actions
        before, struck = observation, infos["struck"]
        observation, _, _, _, infos = env.step(actions)
        yield before, actions, infos | {"struck": struck}, widths


def test_random_acts_once_in_every_run_and_only_legally(small_split):
    moments = list(follow(small_split, RandomPlayer(), runs=32))
    asked = np.stack([actions[:, 0] for _, actions, _, _ in moments])
    done = np.stack([infos["adapted"] for _, _, infos, _ in moments])
    np.testing.assert_array_equal(asked.sum(axis=0), 1)
    np.testing.assert_array_equal(asked, done)
    assert (asked.sum(axis=1) > 0).sum() >= 8
    chosen = [tuple(action) for _, actions, _, _ in moments for action in actions if action[0]]
    assert len(Counter(kind for _, _, kind in chosen)) >= 4
    whole = moments[0][0]["node_mask"].shape[1]
    assert 0 < sum(target == whole for _, target, _ in chosen) < len(chosen)


def test_random_follows_from_its_seed(small_split):
    def actions(seed):
        return [one for _, one, _, _ in follow(small_split, RandomPlayer(), seed, runs=4)]

    np.testing.assert_array_equal(actions(5), actions(5))
    assert not np.array_equal(actions(5), actions(6))


def test_growth_widens_the_narrowest_layer_that_can_be_in_every_period(small_split):
    grown = 0
    for moment, (before, actions, infos, widths) in enumerate(
        follow(small_split, GrowingPlayer(every=3))
    ):
        able = before["action_mask"][:, :, WIDEN].astype(bool)
        due = able.any(axis=1) & ((moment + 1) % 3 == 0)
        np.testing.assert_array_equal(actions[:, 0], due)
        np.testing.assert_array_equal(infos["adapted"], due)
        for run in np.flatnonzero(due):
            assert actions[run, 2] == WIDEN
            assert widths[run, actions[run, 1]] == widths[run][able[run]].min()
        grown += due.sum()
    assert grown > 12


def test_idle_never_acts(small_split):
    for _, actions, infos, _ in follow(small_split, IdlePlayer()):
        assert not actions[:, 0].any()
        assert not infos["adapted"].any()


@pytest.mark.parametrize("seed", [0, 1])
def test_everything_the_oracle_does_is_accepted_and_after_the_fault(small_split, seed):
    acted = 0
    for before, actions, infos, _ in follow(small_split, OraclePlayer(), seed):
        nodes = before["node_mask"].shape[1]
        for run in np.flatnonzero(actions[:, 0]):
            kind, layer = KINDS[infos["fault_kind"][run]], int(infos["fault_layer"][run])
            _, target, action = actions[run].tolist()
            where = NEVER if target == nodes else target
            assert (where, action) in accepted(kind, layer)
            assert infos["struck"][run]
            acted += 1
    assert acted >= 3
