"""The objective and its difference: telescoping, decomposition, missing values, constraints."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tamiyo.contracts import AdaptationType
from tamiyo.graph.schema import ACTIONS
from tamiyo.learn.rewards import (
    COMPONENTS,
    GROWING,
    Measurements,
    MultiMetricRewardSystem,
    RewardConfig,
)

LENGTH, RUNS = 6, 3
CONFIG = RewardConfig(
    accuracy=1.3, speed=0.2, memory=0.1, stability=0.4, safety=0.7, episode_length=LENGTH
)
SHARE = st.one_of(st.floats(0, 1), st.just(np.nan))
RATIO = st.one_of(st.floats(0, 100), st.just(np.nan))


def columns(elements):
    return hnp.arrays(np.float64, (LENGTH, RUNS), elements=elements)


EPISODES = st.fixed_dictionaries(
    {
        "quality": columns(SHARE),
        "twin_quality": columns(SHARE),
        "compute": columns(RATIO),
        "memory": columns(RATIO),
        "unstable": columns(SHARE),
        "twin_unstable": columns(SHARE),
        "rollbacks": columns(st.integers(0, 3).map(float)),
        "twin_error": columns(SHARE),
    }
)


def play(system, episode):
    """Rewards of each interval of an episode."""
    length = len(episode["quality"])
    return [
        system.step(Measurements(**{name: column[t] for name, column in episode.items()}))
        for t in range(length)
    ]


@given(EPISODES, hnp.arrays(np.float64, RUNS, elements=st.floats(-1, 1)))
def test_the_return_is_the_difference_of_the_objective(episode, gap):
    system = MultiMetricRewardSystem(RUNS, CONFIG)
    system.reset(gap=gap)
    start = system.objective
    told = play(system, episode)
    total = np.sum([rewards.reward for rewards in told], axis=0)
    np.testing.assert_allclose(total, told[-1].objective - start, rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(told[-1].objective, system.objective)


@given(EPISODES)
def test_a_reward_is_exactly_the_sum_of_its_components(episode):
    system = MultiMetricRewardSystem(RUNS, CONFIG)
    told = play(system, episode)
    for rewards in told:
        np.testing.assert_array_equal(rewards.reward, rewards.components.sum(-1))
        np.testing.assert_array_equal(
            np.stack(list(rewards.report().values()), -1), rewards.components
        )
    parts = np.sum([rewards.components for rewards in told], axis=0)
    np.testing.assert_allclose(parts, system.component_returns, rtol=1e-12, atol=1e-9)


def reference(episode, run):
    """J(T) of one run from its definition, in plain Python."""
    rows = [{name: column[t, run] for name, column in episode.items()} for t in range(LENGTH)]
    gaps = [row["quality"] - row["twin_quality"] for row in rows]
    known = [gap for gap in gaps if not math.isnan(gap)]
    total = 1.3 * (known[-1] if known else 0.0)
    for weight, excess in (
        (0.2, [row["compute"] - 1 for row in rows]),
        (0.1, [row["memory"] - 1 for row in rows]),
        (0.4, [row["unstable"] - row["twin_unstable"] for row in rows]),
    ):
        waiting = 0
        for value in excess:
            waiting += 1
            if not math.isnan(value):
                total -= weight * value * waiting / LENGTH
                waiting = 0
    return total - 0.7 * sum(row["rollbacks"] for row in rows) / CONFIG.rollback_limit


@given(EPISODES)
def test_the_objective_is_what_the_document_says_and_runs_share_nothing(episode):
    told = play(MultiMetricRewardSystem(RUNS, CONFIG), episode)
    expected = [reference(episode, run) for run in range(RUNS)]
    np.testing.assert_allclose(told[-1].objective, expected, rtol=1e-12, atol=1e-9)


@given(EPISODES)
def test_one_run_alone_gets_what_it_gets_among_others(episode):
    together = play(MultiMetricRewardSystem(RUNS, CONFIG), episode)
    one = {name: column[:, 1:2] for name, column in episode.items()}
    for all_runs, alone in zip(
        together, play(MultiMetricRewardSystem(1, CONFIG), one), strict=True
    ):
        np.testing.assert_array_equal(all_runs.components[1], alone.components[0])


def test_a_run_that_equals_its_twin_gets_exactly_nothing():
    system = MultiMetricRewardSystem(2)
    same = Measurements.of(
        [0.3, 0.9], [0.3, 0.9], compute=1, memory=1, unstable=0.25, twin_unstable=0.25
    )
    for _ in range(system.config.episode_length):
        rewards = system.step(same)
        np.testing.assert_array_equal(rewards.components, np.zeros((2, len(COMPONENTS))))
        assert rewards.measured.all()


@pytest.mark.parametrize(
    ("better", "column"),
    [
        ({"quality": [0.6]}, 0),
        ({"compute": 0.5}, 1),
        ({"memory": 0.5}, 2),
        ({"unstable": 0.1}, 3),
        ({"rollbacks": 0}, 4),
    ],
)
def test_each_component_moves_the_reward_the_right_way_and_alone(better, column):
    usual = {
        "quality": [0.5],
        "twin_quality": 0.5,
        "compute": 1.0,
        "memory": 1.0,
        "unstable": 0.5,
        "twin_unstable": 0.5,
        "rollbacks": 1,
    }
    plain = MultiMetricRewardSystem(1).step(Measurements.of(**usual))
    gained = MultiMetricRewardSystem(1).step(Measurements.of(**usual | better))
    difference = gained.components - plain.components
    assert difference[0, column] > 0
    assert np.count_nonzero(difference) == 1


def test_what_is_not_measured_stands_still_and_is_paid_later():
    system = MultiMetricRewardSystem(1, RewardConfig(episode_length=4))
    missing = system.step(Measurements.of([np.nan], 0.5))
    assert missing.reward == 0
    assert missing.measured[0].tolist() == [False, False, False, False, True]
    paid = system.step(Measurements.of([0.75], 0.5, compute=2.0))
    assert paid.components[0].tolist() == [0.25, -0.1 * 2 / 4, 0, 0, 0]


def test_the_error_of_a_forecast_twin_is_that_of_the_last_measured_gap():
    system = MultiMetricRewardSystem(1, RewardConfig(accuracy=2.0))
    assert system.step(Measurements.of([0.5], 0.5)).standard_error == 0
    assert system.step(Measurements.of([0.5], 0.4, twin_error=0.1)).standard_error == 0.2
    assert system.step(Measurements.of([np.nan], 0.4, twin_error=0.3)).standard_error == 0.2


def test_episodes_have_one_length_and_are_reset_one_by_one():
    system = MultiMetricRewardSystem(2, RewardConfig(episode_length=2))
    good = Measurements.of([0.9, 0.9], 0.5)
    assert not system.step(good).done.any()
    assert system.step(good).done.all()
    with pytest.raises(ValueError, match="reset it"):
        system.step(good)
    system.reset(np.array([True, False]))
    assert system.over.tolist() == [False, True]
    assert system.objective.tolist() == [0.0, pytest.approx(0.4)]
    system.reset(gap=[0.25, -0.5])
    np.testing.assert_allclose(system.step(good).reward, [0.15, 0.9])


def test_invalid_runs_are_marked_until_their_next_episode():
    system = MultiMetricRewardSystem(2)
    system.invalidate(np.array([True, False]))
    assert system.step(Measurements.of([0.5, 0.5], 0.5)).valid.tolist() == [False, True]
    system.reset()
    assert system.step(Measurements.of([0.5, 0.5], 0.5)).valid.all()


def allowed(system):
    """Per run, the actions that are left."""
    return [{action for action, yes in zip(ACTIONS, row, strict=True) if yes} for row in system]


def test_limits_forbid_whatever_the_gain():
    system = MultiMetricRewardSystem(4, RewardConfig(episode_length=2, rollback_limit=3))
    everything = set(ACTIONS)
    assert allowed(system.allowed()) == [everything] * 4
    measurements = Measurements.of(
        [1.0, 1.0, 1.0, 1.0],
        0.0,
        compute=[4.0, 1.0, 1.0, 1.0],
        memory=[1.0, 4.0, np.nan, 1.0],
        rollbacks=[0, 0, 3, 2],
    )
    system.step(measurements)
    small = everything - GROWING
    silent = MultiMetricRewardSystem(4, RewardConfig(rollback_limit=3))
    silent.step(measurements)
    silent.step(Measurements.of([1.0] * 4, 0.0))  # the size that was measured last still holds
    assert allowed(silent.allowed())[:2] == [small, small]
    assert allowed(system.allowed()) == [small, small, {AdaptationType.RESTORE}, everything]
    system.step(Measurements.of([1.0] * 4, 0.0, compute=[1.0, 1, 1, 1]))
    assert allowed(system.allowed()) == [set()] * 4
    system.reset()
    assert allowed(system.allowed()) == [everything] * 4
