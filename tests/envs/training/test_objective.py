"""J of real runs is that of the reward system, fed with what can be counted by hand."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tamiyo.contracts import AdaptationType
from tamiyo.envs.training.course import Quality
from tamiyo.envs.training.episode import Episode
from tamiyo.envs.training.faults import Fault, FaultKind
from tamiyo.envs.training.hosts import HostSpec
from tamiyo.envs.training.sampling import Scenario, TrainingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.graph.schema import ACTIONS
from tamiyo.learn.rewards import RewardConfig
from test_vector_env import legal_at_random
from watched_plans import watched

CONFIG = TrainingConfig(decisions=5, interval=5, max_hidden=3, held_out=60)
SPECS = (
    HostSpec("digits", (12, 10, 8), "plain", "relu", seed=1),
    HostSpec("wine", (8, 8), "plain", "relu", seed=2),
    HostSpec("breast_cancer", (9,), "plain", "tanh", seed=3),
)


def begin(config=CONFIG, first_fault=None):
    faults = (first_fault or Fault(), Fault(), Fault())
    scenarios = [Scenario(*pair) for pair in zip(SPECS, faults, strict=True)]
    return Episode(watched(scenarios, 16, config), config, np.random.default_rng(0))


def act(episode, host, node, adaptation):
    actions = np.zeros((len(SPECS), 3), np.int64)
    actions[host] = 1, node, ACTIONS.index(adaptation)
    assert episode.step(actions)[host]


def wait(episode):
    episode.step(np.zeros((len(SPECS), 3), np.int64))


def parameters(*sizes):
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))


def products(*sizes):
    return sum(inputs * outputs for inputs, outputs in pairwise(sizes))


def test_a_run_that_is_left_alone_is_worth_nothing():
    episode = begin(first_fault=Fault(FaultKind.NOT_A_NUMBER, 1, 12))
    while not episode.over:
        wait(episode)
        np.testing.assert_array_equal(episode.objective(), 0.0)
        np.testing.assert_array_equal(episode.worth.system.levels, 0.0)


def test_a_wider_layer_costs_compute_and_memory_from_then_on():
    episode = begin()
    wait(episode)
    act(episode, 0, 2, AdaptationType.WIDEN)
    wider = int(episode.cohort.units[episode.cohort.layout.row_of[0, 1]].sum())
    assert wider > 10
    while not episode.over:
        wait(episode)
    before, after = (64, 12, 10, 8, 10), (64, 12, wider, 8, 10)
    share = 4 / 5  # of the decisions
    levels = episode.worth.system.levels
    speed = share * (products(*after) / products(*before) - 1)
    memory = share * (parameters(*after) / parameters(*before) - 1)
    assert levels[0, 1:3] == pytest.approx([speed, memory])
    assert not levels[1:].any()
    gap = episode.worth.quality[0] - episode.worth.twin_quality[0]
    expected = gap - 0.1 * speed - 0.05 * memory - CONFIG.adaptation_cost
    stability = -0.1 * levels[0, 3]
    assert episode.objective()[0] == pytest.approx(expected + stability)


def test_quality_is_accuracy_between_chance_and_perfect():
    episode = begin()
    largest = [
        np.bincount(spec.dataset.held_out_labels).max() / len(spec.dataset.held_out_labels)
        for spec in SPECS
    ]
    for accuracy, quality in ((1.0, 1.0), (0.0, 0.0), (largest, 0.0)):
        found = Quality(np.zeros(3), np.broadcast_to(np.asarray(accuracy, np.float64), 3))
        episode.worth.judge(found, found)
        assert episode.worth.quality == pytest.approx([quality] * 3)
    half = Quality(np.zeros(3), (np.array(largest) + 1) / 2)
    episode.worth.judge(half, half)
    assert episode.worth.quality == pytest.approx([0.5] * 3)


def test_steps_without_a_loss_or_with_a_huge_one_are_unstable_beside_the_twin():
    episode = begin()
    present = Quality(np.zeros(3), np.ones(3))
    losses, twins = np.ones((3, 5)), np.ones((3, 5))
    losses[0, :2] = np.nan, np.inf
    losses[1, 0], losses[2, 0] = 2.1 * np.log(3), 1.9 * np.log(2)
    twins[0, 4] = np.nan
    episode.worth.step(present, present, losses, twins)
    share = 1 / CONFIG.decisions
    assert episode.worth.system.levels[:, 3] == pytest.approx([share / 5, share / 5, 0.0])


def test_returns_telescope_to_the_weighted_levels():
    weights = RewardConfig(accuracy=0.5, speed=1.0, memory=0.3, stability=0.2)
    config = replace(CONFIG, rewards=weights, max_hidden=5)
    env, random = TrainingVectorEnv(8, config=config, cohort_size=4), np.random.default_rng(3)
    observation, _ = env.reset(seed=2)
    episodes, total = env.episodes, np.zeros(8)
    for _ in range(config.decisions):
        observation, reward, *_, infos = env.step(legal_at_random(env, observation, random))
        total += reward
    levels = infos["levels"]
    expected = levels @ [0.5, -1.0, -0.3, -0.2, 0.0] - 0.002 * infos["adaptations"]
    np.testing.assert_allclose(total, expected, atol=1e-12)
    final = np.concatenate([episode.objective() for episode in episodes])
    np.testing.assert_allclose(total, final, atol=1e-12)
    assert (levels != 0).any(axis=0).tolist() == [True, True, True, True, False]


def test_nothing_may_grow_at_the_limit():
    limited = replace(CONFIG, rewards=RewardConfig(compute_limit=1.01))
    widens = ACTIONS.index(AdaptationType.WIDEN)
    episode = begin(limited)
    assert episode.masks()[0][0, :, widens].any()
    act(episode, 0, 0, AdaptationType.WIDEN)
    layers, _ = episode.masks()
    assert not layers[0, :, widens].any()
    assert layers[0].any()
    assert layers[1, :, widens].any()
    while not episode.over:
        wait(episode)
    assert not any(mask.any() for mask in episode.masks())


@pytest.mark.slow
def test_curing_is_worth_more_than_waiting_and_chance_is_worth_less():
    def returns(choose):
        env = TrainingVectorEnv(128, config=TrainingConfig(widths=(16, 32)))
        observation, _ = env.reset(seed=5)
        total = np.zeros(128)
        for _ in range(env.config.decisions):
            observation, reward, *_ = env.step(choose(env, observation))
            total += reward
        return total

    random = np.random.default_rng(0)
    cured = returns(lambda env, _: env.oracle_actions())
    chance = returns(lambda env, observation: legal_at_random(env, observation, random))
    for name, total in (("oracle", cured), ("random", chance)):
        print(f"{name}: {total.mean():+.3f} ± {1.96 * total.std() / np.sqrt(128):.3f}")
    assert cured.mean() - 1.96 * cured.std() / np.sqrt(128) > 0
    assert chance.mean() + 1.96 * chance.std() / np.sqrt(128) < 0
    waiting = returns(lambda env, _: np.zeros((env.num_envs, 3), np.int64))
    np.testing.assert_array_equal(waiting, 0.0)
