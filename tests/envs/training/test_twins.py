"""A twin that is forked equals, to the last bit, one that was trained from the first step on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from reference_twins import train_twins
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.episode import Episode
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.sampling import TrainingConfig, draw_cohort
from tamiyo.envs.training.sensing import SensingConfig

CONFIG = TrainingConfig(decisions=6, interval=5, held_out=64)
VARIED = replace(
    CONFIG,
    scheduled=1.0,
    sensing=SensingConfig(paces=(1, 2), readings=(1, 3), leads=(0, 1), eager=(False, True)),
)


def act_at_random(episode, random, share):
    """A legal action of about this share of the runs."""
    layers, model = episode.masks()
    legal = np.concatenate([layers, model[:, None]], axis=1)
    actions = np.zeros((len(legal), 3), np.int64)
    for host in np.flatnonzero(random.random(len(legal)) < share):
        choices = np.argwhere(legal[host])
        if len(choices):
            actions[host] = 1, *random.choice(choices)
    return actions


def assert_same(one, other):
    np.testing.assert_array_equal(one.loss, other.loss)
    np.testing.assert_array_equal(one.accuracy, other.accuracy)


def assert_twins_are_exact(config, hosts, seed, share):
    random = np.random.default_rng([seed, 0])
    plan = draw_cohort(random, config, hosts)
    expected = train_twins(plan, config)
    episode = Episode(plan, config, random)
    assert_same(episode.twin, expected[0])
    for moment in range(1, config.decisions + 1):
        episode.step(act_at_random(episode, random, share))
        assert_same(episode.twin, expected[moment])
    touched = episode.adaptations > 0
    assert touched.any()
    assert (episode.quality.loss[~touched] == episode.twin.loss[~touched]).all()
    assert (episode.quality.loss[touched] != episode.twin.loss[touched]).any()


@pytest.mark.parametrize("share", [0.15, 0.5, 1.0])
@pytest.mark.parametrize(("seed", "config"), [(0, CONFIG), (1, CONFIG), (2, VARIED), (3, VARIED)])
def test_a_forked_twin_equals_one_that_was_always_alone(seed, config, share):
    assert_twins_are_exact(config, 12, seed, share)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 18))
def test_twins_are_exact_in_whole_episodes_of_all_widths(seed):
    assert_twins_are_exact(TrainingConfig(), 32, seed, 0.1)


@pytest.mark.parametrize("kind", [FaultKind.NOT_A_NUMBER, FaultKind.RATE_HIGH])
def test_twins_suffer_the_faults_that_strike_after_they_were_forked(kind):
    config = replace(CONFIG, faults=(kind,), faulty=1.0, decisions=14)
    random = np.random.default_rng(1)
    plan = draw_cohort(random, config, 6)
    assert max(one.fault.step for one in plan.scenarios) > config.interval
    expected = train_twins(plan, config)
    episode = Episode(plan, config, random)
    for moment in range(1, config.decisions + 1):
        episode.step(act_at_random(episode, random, 1.0))
        assert_same(episode.twin, expected[moment])


def specs_of(optimizer):
    config = replace(CONFIG, widths=(24,))
    scenarios = draw_cohort(np.random.default_rng(5), config, 9).scenarios
    return [replace(one.spec, optimizer=optimizer) for one in scenarios]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("hosts", [[0], [8], [2, 3, 7], list(range(9))])
def test_copies_go_on_as_the_originals_do(hosts, optimizer):
    cohort = Cohort(specs_of(optimizer), steps=20, width=24)
    for _ in range(8):
        cohort.train()
    copies = Cohort.gathered([(cohort, np.array(hosts))], np.arange(len(hosts)))
    assert copies.steps == 8
    x, labels = cohort.pool.held_out(50)
    for _ in range(12):
        torch.testing.assert_close(cohort.train()[hosts], copies.train(), rtol=0, atol=0)
    mine, theirs = cohort.evaluate(x, labels), copies.evaluate(*copies.pool.held_out(50))
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one[hosts], other)


def test_copies_of_two_cohorts_are_put_in_order_and_share_nothing():
    cohort = Cohort(specs_of("adam"), steps=20, width=24)
    cohort.train()
    first = Cohort.gathered([(cohort, np.array([1, 6]))], np.array([0, 1]))
    cohort.learning_rate[:] *= 2.0
    both = Cohort.gathered([(cohort, np.array([0, 3])), (first, np.array([0, 1]))], [0, 2, 1, 3])
    assert both.specs == tuple(cohort.specs[host] for host in (0, 1, 3, 6))
    rates = [2.0 * cohort.specs[0].learning_rate, cohort.specs[1].learning_rate]
    assert both.learning_rate[:2].tolist() == pytest.approx(rates)
    before = [tensor.clone() for tensor in (*cohort.weights, *first.weights)]
    both.train()
    both.units[:] = False
    assert all(map(torch.equal, before, (*cohort.weights, *first.weights)))
    assert cohort.units.any()
