"""A live run's messages become the same rewards that a simulated run gets."""

import math

import numpy as np
import pytest

from tamiyo.contracts import (
    AdaptationResult,
    AdaptationType,
    ModelTopology,
    Outcome,
    PerformanceMetrics,
    TopologyNode,
)
from tamiyo.graph.schema import ACTIONS
from tamiyo.learn.rewards import (
    LiveRewards,
    Measurements,
    Metric,
    MultiMetricRewardSystem,
    QualityScale,
    RewardConfig,
)
from tamiyo.learn.rewards.forecast import MIN_HISTORY

EVERY = 10
SCALE = QualityScale(Metric.ACCURACY, 0.0)
CONFIG = RewardConfig(episode_length=40)


def curve(step):
    """Quality of the run left alone."""
    return 0.9 - 8 / (step + 10)


def metrics(step, **fields):
    told = {"validation_accuracy": curve(step), "loss": 1.0, "timestamp": 0.5 * step} | fields
    return PerformanceMetrics(run="r", step=step, **told)


def result(step, decision="d1", outcome=Outcome.APPLIED, **fields):
    return AdaptationResult(decision_id=decision, run="r", step=step, outcome=outcome, **fields)


def topology(parameters):
    return ModelTopology(
        run="r", nodes=(TopologyNode(layer_id=0, name="a", type="Linear", parameters=parameters),)
    )


def live(*, until=300, config=CONFIG, interval=EVERY):
    """A run that was left alone up to a step."""
    rewards = LiveRewards("r", SCALE, interval_steps=interval, config=config)
    rewards.observe(topology(100))
    told = []
    for step in range(0, until + 1, EVERY):
        told += rewards.observe(metrics(step))
    return rewards, told


def after(rewards, steps, **fields):
    told = []
    for step in steps:
        told += rewards.observe(metrics(step, **fields))
    return told


def test_a_run_that_is_left_alone_gets_exactly_nothing():
    _, told = live()
    assert len(told) == 30
    for rewards in told:
        assert not rewards.components.any()
        assert rewards.measured.all()
        assert rewards.valid.all()


def test_after_a_change_a_run_is_held_against_its_forecast():
    rewards, _ = live()
    rewards.observe(result(300))
    (told,) = after(rewards, [310], validation_accuracy=0.95)
    forecast = rewards.baseline.curve.at([310])
    assert told.levels[0, 0] == pytest.approx(0.95 - forecast.mean[0])
    assert told.standard_error[0] == pytest.approx(forecast.standard_error[0])
    assert forecast.mean[0] == pytest.approx(curve(310), abs=0.01)


def test_live_and_simulated_runs_get_the_same():
    rewards, told = live(until=300)
    rewards.observe(result(300, duration_ms=1000))
    rewards.observe(topology(150))
    told += after(rewards, [310], validation_accuracy=0.9, alarm="loss", timestamp=156.0)
    told += after(rewards, [320], validation_accuracy=0.9, alarm="loss", timestamp=161.0)
    rewards.observe(result(325, outcome=Outcome.ROLLED_BACK))
    told += after(rewards, [330], timestamp=166.0)
    twin = rewards.baseline.curve.at([310, 320, 330])
    system = MultiMetricRewardSystem(1, CONFIG)
    system.reset()
    for _ in range(30):
        system.step(
            Measurements.of([0.5], 0.5, compute=1, memory=1, unstable=0.0, twin_unstable=0.0)
        )
    simulated = [
        system.step(
            Measurements.of(
                [quality],
                twin.mean[index],
                twin_error=twin.standard_error[index],
                compute=compute,
                memory=1.5,
                unstable=unstable,
                twin_unstable=0.0,
                rollbacks=rollbacks,
            )
        )
        # A second of pause in ten steps of half a second is a fifth more.
        for index, (quality, compute, unstable, rollbacks) in enumerate(
            [(0.9, 1.2, 1.0, 0), (0.9, 1.0, 1.0, 0), (curve(330), 1.0, 0.0, 1)]
        )
    ]
    for one, other in zip(told[-3:], simulated, strict=True):
        np.testing.assert_allclose(one.components, other.components, atol=1e-12)


def test_a_run_changed_too_early_has_no_twin_and_is_not_learnt_from():
    rewards, _ = live(until=EVERY * (MIN_HISTORY - 1))
    restore = np.array([action is AdaptationType.RESTORE for action in ACTIONS])
    np.testing.assert_array_equal(rewards.allowed(), restore)
    rewards.observe(result(EVERY * (MIN_HISTORY - 1)))
    told = after(rewards, range(200, 200 + 50 * EVERY, EVERY), validation_accuracy=1.0)
    assert len(told) > CONFIG.episode_length  # it holds in the next episode as well
    for interval in told:
        assert not interval.valid.any()
        assert not interval.reward.any()
    np.testing.assert_array_equal(rewards.allowed(), restore)


def test_a_run_whose_future_is_open_is_left_alone():
    """A curve that has hardly begun to rise: enough evaluations, and yet no forecast to trust."""
    noise = np.random.default_rng(0).normal(0, 0.02, 31)
    rewards = LiveRewards("r", SCALE, interval_steps=EVERY, config=CONFIG)
    for index, step in enumerate(range(0, 301, EVERY)):
        rising = 0.1 + 0.5 / (1 + math.exp(-(step - 280) / 30)) + noise[index]
        rewards.observe(metrics(step, validation_accuracy=max(rising, 0.0)))
    assert rewards.allowed().sum() == 1
    rewards.observe(result(300))
    assert rewards.baseline.curve.at(700).standard_error[0] > CONFIG.forecast_error_limit
    (told,) = after(rewards, [310])
    assert not told.valid.any()


def test_with_enough_of_a_curve_everything_is_allowed():
    rewards, _ = live(until=EVERY * MIN_HISTORY)
    assert rewards.allowed().all()
    rewards.observe(result(EVERY * MIN_HISTORY))
    assert rewards.allowed().all()


def test_reports_that_overtake_the_result_do_not_enter_the_forecast():
    prompt, _ = live()
    prompt.observe(result(300))
    late, _ = live()
    after(late, [310, 320], validation_accuracy=0.1)
    late.observe(result(300))
    steps = [330, 400]
    np.testing.assert_array_equal(
        prompt.baseline.curve.at(steps).mean, late.baseline.curve.at(steps).mean
    )


def test_a_diverged_run_is_worth_nothing_and_a_silent_one_stands_still():
    rewards, _ = live()
    rewards.observe(result(300))
    (silent,) = after(rewards, [310], validation_accuracy=None)
    assert silent.reward == 0
    assert not silent.measured[0, 0]
    (diverged,) = after(rewards, [320], validation_accuracy=None, loss=None, loss_nonfinite=10)
    assert diverged.measured[0, 0]
    assert diverged.levels[0, 0] == pytest.approx(-curve(320), abs=0.02)
    assert diverged.levels[0, 3] == pytest.approx(1 / CONFIG.episode_length)


def test_what_was_missed_is_made_up_for():
    """One report after five intervals is worth what five reports are."""
    often, _ = live()
    seldom, _ = live()
    for rewards in (often, seldom):
        rewards.observe(result(300))
    slow = {"validation_accuracy": 0.9, "alarm": "loss"}
    many = after(often, range(310, 360, EVERY), **slow)
    few = after(seldom, [350], **slow)
    assert len(many) == len(few) == 5
    np.testing.assert_allclose(many[-1].levels, few[-1].levels, atol=1e-12)


def test_episodes_follow_each_other_against_the_same_twin():
    config = RewardConfig(episode_length=5)
    rewards, _ = live(config=config)
    rewards.observe(result(300))
    twin = rewards.baseline
    told = after(rewards, range(310, 360, EVERY), validation_accuracy=0.4)
    assert told[-1].done
    rewards.observe(result(351, decision="d2"))
    told += after(rewards, range(360, 410, EVERY), validation_accuracy=0.9)
    assert told[-1].done
    assert rewards.baseline is twin
    quality = sum(interval.components[0, 0] for interval in told)
    assert quality == pytest.approx(0.9 - twin.curve.at(400).mean[0])


def test_decisions_are_credited_and_nothing_is_lost():
    rewards, told = live()
    rewards.observe(result(300, decision="a"))
    told += after(rewards, range(310, 350, EVERY), validation_accuracy=0.8)
    rewards.observe(result(341, decision="b"))
    told += after(rewards, range(350, 380, EVERY), validation_accuracy=0.95)
    credit = rewards.attribution()
    assert list(credit) == ["", "a", "b"]
    assert credit["b"]["immediate"] > 0.1
    total = sum(sum(bands.values()) for bands in credit.values())
    assert total == pytest.approx(sum(float(interval.reward[0]) for interval in told))


def test_an_evaluation_before_the_change_is_the_twins_own():
    """Whatever it scatters around the forecast, nothing had been done yet."""
    rewards, _ = live(until=295, interval=30)
    rewards.observe(metrics(300, validation_accuracy=0.5))
    rewards.observe(metrics(310, validation_accuracy=0.5))
    rewards.observe(result(310))
    (told,) = rewards.observe(metrics(330, validation_accuracy=None))
    assert told.components[0, 0] == 0
    assert told.measured[0, 0]


def test_a_long_silence_is_skipped():
    rewards, _ = live()
    told = after(rewards, [10**15])
    assert len(told) == CONFIG.episode_length + 1
    assert len(after(rewards, [10**15 + EVERY])) == 1


def test_odd_messages_do_no_harm():
    rewards = LiveRewards("r", SCALE, interval_steps=EVERY)
    assert rewards.attribution() == {}
    assert rewards.observe(metrics(50).model_copy(update={"run": "other"})) == []
    assert rewards.observe(metrics(0)) == []
    assert rewards.observe(metrics(0)) == []
    (told,) = rewards.observe(metrics(10, timestamp=-5.0))
    assert not told.reward.any()
    refused = result(11, outcome=Outcome.REFUSED)
    rewards.observe(refused)
    assert rewards.changed_at is None
    with pytest.raises(ValueError, match="at least one step"):
        LiveRewards("r", SCALE, interval_steps=0)


def test_what_no_message_tells_is_missing():
    rewards = LiveRewards("r", SCALE, interval_steps=EVERY)
    for step in range(0, 301, EVERY):
        rewards.observe(metrics(step, timestamp=0.0))
    rewards.observe(result(300))
    (told,) = after(rewards, [310], timestamp=0.0)
    assert told.measured[0].tolist() == [True, False, False, True, True]
    assert not math.isnan(told.reward[0])
