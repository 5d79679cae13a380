"""Learning curves: exact where they are what they are taken for, honest where they are not."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from tamiyo.envs import digits_mlp
from tamiyo.learn.rewards import Forecast, LearningCurve, Metric, QualityScale
from tamiyo.learn.rewards.forecast import MIN_HISTORY

STEPS = np.arange(1, 81) * 10.0
CHANCE = {
    0: QualityScale(Metric.LOSS, math.log(10)),
    1: QualityScale(Metric.ACCURACY, 0.1),
}


def power_law(steps, offset=0.95, scale=3.0, power=0.75):
    return offset - scale * steps**-power


@pytest.mark.parametrize("power", [0.5, 0.75, 1.0, 1.5])
def test_a_power_law_with_an_offset_is_continued(power):
    truth = power_law(STEPS, scale=0.8 * 10**power, power=power)
    forecast = LearningCurve(STEPS[:40], truth[:40]).at(STEPS[40:])
    np.testing.assert_allclose(forecast.mean, truth[40:], atol=0.01)


def test_a_sigmoidal_start_is_continued():
    truth = 0.9 - 0.9 / (1 + (STEPS / 150) ** 2)
    forecast = LearningCurve(STEPS[:40], truth[:40]).at(STEPS[40:])
    np.testing.assert_allclose(forecast.mean, truth[40:], atol=0.02)


def test_a_few_wild_evaluations_move_nothing():
    truth = power_law(STEPS)
    wild = truth.copy()
    wild[[12, 25, 33, 39]] = 0.0
    clean = LearningCurve(STEPS[:40], truth[:40]).at(STEPS[40:])
    robust = LearningCurve(STEPS[:40], wild[:40]).at(STEPS[40:])
    np.testing.assert_allclose(robust.mean, clean.mean, atol=0.03)


def test_a_flat_curve_is_continued_flat():
    forecast = LearningCurve(STEPS[:40], np.full(40, 0.3)).at(STEPS[40:])
    np.testing.assert_allclose(forecast.mean, 0.3, atol=1e-6)
    assert np.all(forecast.standard_error < 0.01)


def test_missing_evaluations_are_left_out():
    values = power_law(STEPS[:40])
    holes = values.copy()
    holes[::4] = np.nan
    known = ~np.isnan(holes)
    with_holes = LearningCurve(STEPS[:40], holes).at(STEPS[40:])
    without = LearningCurve(STEPS[:40][known], values[known]).at(STEPS[40:])
    np.testing.assert_array_equal(with_holes.mean, without.mean)


def test_uncertainty_grows_with_the_distance():
    noise = np.random.default_rng(0).normal(0, 0.02, 40)
    forecast = LearningCurve(STEPS[:40], power_law(STEPS[:40]) + noise).at(STEPS[39:])
    assert np.all(np.diff(forecast.standard_error) >= 0)
    assert forecast.standard_error[0] > 0.01


def test_a_past_that_could_not_be_foreseen_widens_the_interval():
    """Two rises: a forecast from between them would have been wrong, so the next one may be."""
    twice = 0.2 / (1 + (50 / STEPS) ** 4) + 0.5 / (1 + (300 / STEPS) ** 8)
    forecast = LearningCurve(STEPS[:40], twice[:40]).at(STEPS[79])
    usual = LearningCurve(STEPS[:40], power_law(STEPS[:40])).at(STEPS[79])
    assert forecast.standard_error > 0.1 > 3 * usual.standard_error


def test_the_units_of_time_do_not_matter():
    values = power_law(STEPS[:40]) + np.random.default_rng(1).normal(0, 0.01, 40)
    tens = LearningCurve(STEPS[:40], values).at(STEPS[40:])
    thousands = LearningCurve(STEPS[:40] * 1000, values).at(STEPS[40:] * 1000)
    np.testing.assert_allclose(tens.mean, thousands.mean, rtol=1e-9)
    np.testing.assert_allclose(tens.standard_error, thousands.standard_error, rtol=1e-9)


def test_intervals_of_power_laws_with_noise_hold_what_they_promise():
    generator = np.random.default_rng(2)
    inside = {0.8: [], 0.95: []}
    for _ in range(150):
        truth = 0.95 - 0.9 / (1 + (STEPS / generator.uniform(10, 200))) ** generator.uniform(0.4, 2)
        seen = np.clip(truth + generator.normal(0, 0.02, len(truth)), 0, 1)
        forecast = LearningCurve(STEPS[:40], seen[:40]).at(STEPS[[44, 59, 79]])
        for level, hits in inside.items():
            low, high = forecast.interval(level)
            hits.append((low <= seen[[44, 59, 79]]) & (seen[[44, 59, 79]] <= high))
    assert np.all(np.mean(inside[0.8], axis=0) > 0.8)
    assert np.all(np.mean(inside[0.95], axis=0) > 0.95)


@pytest.mark.parametrize("level", [0.01, 0.5, 0.8, 0.95, 0.999])
def test_intervals_are_students_with_four_degrees_of_freedom(level):
    low, high = Forecast(np.array([0.5]), np.array([0.1])).interval(level)
    reach = 0.1 * stats.t(4).ppf(0.5 + level / 2)
    np.testing.assert_allclose([low[0], high[0]], [0.5 - reach, 0.5 + reach], rtol=1e-9)


def test_what_cannot_be_forecast_is_refused():
    values = power_law(STEPS)
    with pytest.raises(ValueError, match=f"{MIN_HISTORY} are needed"):
        LearningCurve(STEPS[: MIN_HISTORY - 1], values[: MIN_HISTORY - 1])
    with pytest.raises(ValueError, match="increase"):
        LearningCurve(STEPS[::-1], values)
    with pytest.raises(ValueError, match="must both be"):
        LearningCurve(STEPS[:30], values)
    curve = LearningCurve(STEPS[:40], values[:40])
    with pytest.raises(ValueError, match="from there on"):
        curve.at(STEPS[0])
    with pytest.raises(ValueError, match="level"):
        curve.at(STEPS[41]).interval(1.0)


def learning_curve(seed, evaluations):
    """Held-out loss and accuracy of a small network on digits every 10 steps, [evaluations, 2]."""
    draw = np.random.default_rng(seed)
    task = digits_mlp(width=int(draw.choice([8, 16, 32, 64])), depth=int(draw.integers(1, 4)))
    torch.manual_seed(seed)
    model = task.make_model()
    if draw.random() < 0.5:
        optimizer = torch.optim.Adam(model.parameters(), 10 ** draw.uniform(-3.5, -2.3))
    else:
        rate, momentum = 10 ** draw.uniform(-2.3, -0.8), draw.choice([0.0, 0.9])
        optimizer = torch.optim.SGD(model.parameters(), rate, momentum=momentum)
    batches, told = task.batches(seed), []
    for step in range(1, 10 * evaluations + 1):
        inputs, labels = next(batches)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[:32]), labels[:32]).backward()
        optimizer.step()
        if step % 10 == 0:
            told.append(task.evaluate(model))
    return np.array(told)


@pytest.fixture(scope="module")
def digits_curves():
    """Other networks and seeds than those that the forecast was developed on."""
    return np.stack([learning_curve(seed, 80) for seed in range(5000, 5080)])


@pytest.mark.slow
@pytest.mark.parametrize("history", [20, 40])
@pytest.mark.parametrize("metric", [0, 1], ids=["loss", "accuracy"])
def test_intervals_hold_on_real_learning_curves(digits_curves, metric, history):
    """Half as far again as the history, and as far again; a binomial margin below the promise."""
    ahead = np.array([history + history // 2, 2 * history]) - 1
    inside = {0.8: [], 0.95: []}
    errors = []
    for curve in digits_curves:
        quality = CHANCE[metric].quality(curve[:, metric])
        forecast = LearningCurve(STEPS[:history], quality[:history]).at(STEPS[ahead])
        errors.append(quality[ahead] - forecast.mean)
        for level, hits in inside.items():
            low, high = forecast.interval(level)
            hits.append((low <= quality[ahead]) & (quality[ahead] <= high))
    coverage = {level: np.mean(hits, axis=0) for level, hits in inside.items()}
    print(coverage, np.mean(errors, axis=0), np.median(np.abs(errors), axis=0))
    for level, share in coverage.items():
        margin = 3 * math.sqrt(level * (1 - level) / len(digits_curves))
        assert np.all(share >= level - margin)
    assert np.all(np.abs(np.mean(errors, axis=0)) < 0.04)
