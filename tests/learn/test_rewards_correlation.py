"""Correlations: right where there are some, silent where there are none."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from tamiyo.learn.rewards import Finding, analyze_correlations
from tamiyo.learn.rewards.correlation import holm

ALPHA = 0.05


def noise(generator, rows, columns):
    return {f"c{index}": generator.normal(size=rows) for index in range(columns)}


def only(report):
    """The one pair that was tested."""
    (pair,) = report.associations
    return pair


@given(
    hnp.arrays(np.float64, 30, elements=st.integers(0, 8).map(float)),
    hnp.arrays(np.float64, 30, elements=st.floats(-5, 5)),
)
def test_rank_correlations_are_those_of_scipy(x, y):
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return
    pair = only(analyze_correlations({"x": x}, {"y": y}))
    assert pair.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_p_values_are_near_those_of_scipy():
    generator = np.random.default_rng(0)
    x = generator.normal(size=80)
    y = 0.3 * x + generator.normal(size=80)
    pair = only(analyze_correlations({"x": x}, {"y": y}, alpha=0.001))
    assert pair.spearman_p < pair.mutual_information_p  # so it is the smaller of two: doubled
    assert pair.spearman_p == pytest.approx(2 * stats.spearmanr(x, y).pvalue, rel=0.2, abs=0.003)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@example([0.02, 0.021, 0.03])  # the first fails, so the others do, whatever their own thresholds
def test_adjusted_p_values_reject_what_holm_rejects(p_values):
    """Against the procedure's definition: step down until the first p above its threshold."""
    rejected = set()
    for rank, index in enumerate(np.argsort(p_values)):
        if p_values[index] * (len(p_values) - rank) > ALPHA:
            break
        rejected.add(index)
    adjusted = holm(p_values)
    assert {index for index, p in enumerate(adjusted) if p <= ALPHA} == rejected
    assert holm([]) == []


def test_what_is_there_is_found():
    generator = np.random.default_rng(1)
    features = noise(generator, 400, 4)
    outcomes = noise(generator, 400, 2)
    outcomes["linear"] = 0.4 * features["c0"] + generator.normal(size=400)
    outcomes["even"] = features["c1"] ** 2 + 0.5 * generator.normal(size=400)
    found = {
        (pair.feature, pair.outcome): pair
        for pair in analyze_correlations(features, outcomes).found
    }
    assert set(found) == {("c0", "linear"), ("c1", "even")}
    assert found["c0", "linear"].spearman > 0.25
    assert found["c1", "even"].mutual_information_p <= ALPHA < found["c1", "even"].spearman_p


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_mutual_information_of_gaussians(rho):
    """The closed form is -log(1 - ρ²)/2; binning loses some of it and never adds any."""
    generator = np.random.default_rng(2)
    x, other = generator.normal(size=(2, 2000))
    pair = only(analyze_correlations({"x": x}, {"y": rho * x + math.sqrt(1 - rho**2) * other}))
    truth = -math.log(1 - rho**2) / 2
    assert 0.7 * truth - 0.005 <= pair.mutual_information <= truth + 0.01


@pytest.mark.parametrize("rows", [0, 5, 29])
def test_few_observations_are_not_enough_data(rows):
    generator = np.random.default_rng(3)
    x = generator.normal(size=rows)
    report = analyze_correlations({"x": x}, {"y": x})
    assert only(report).finding is Finding.NOT_ENOUGH_DATA
    assert math.isnan(only(report).spearman)
    assert math.isnan(only(report).mutual_information_p)
    assert report.tests == 0
    assert not report.found


def test_missing_values_and_constants_are_no_data():
    generator = np.random.default_rng(4)
    x = generator.normal(size=100)
    holes = np.where(np.arange(100) < 75, np.nan, x)
    outcomes = {"holes": holes, "constant": np.ones(100), "same": x}
    report = analyze_correlations({"x": x}, outcomes)
    told = {pair.outcome: pair for pair in report.associations}
    assert told["holes"].samples == 25
    assert told["holes"].finding is told["constant"].finding is Finding.NOT_ENOUGH_DATA
    assert told["same"].finding is Finding.ASSOCIATED
    assert report.tests == 2


def test_the_same_seed_gives_the_same_report():
    columns = noise(np.random.default_rng(5), 60, 3)
    first, second = (analyze_correlations(columns, columns, seed=7) for _ in range(2))
    assert first == second


def test_columns_are_checked():
    with pytest.raises(ValueError, match="same length"):
        analyze_correlations({"x": [1.0, 2.0]}, {"y": [1.0]})
    with pytest.raises(ValueError, match="same length"):
        analyze_correlations({"x": [1.0]}, {"y": [1.0]}, episodes=[0, 1])
    with pytest.raises(ValueError, match="finite"):
        analyze_correlations({"x": [math.inf]}, {"y": [1.0]})
    with pytest.raises(ValueError, match="alpha"):
        analyze_correlations({}, {}, alpha=0)


def false_reports(seeds, make):
    """How many analyses of pure noise report anything."""
    return sum(bool(analyze_correlations(*make(np.random.default_rng(s))).found) for s in seeds)


def independent_noise(generator):
    return noise(generator, 40, 3), noise(generator, 40, 2)


def dependent_noise(generator):
    """Features that nearly repeat each other, outcomes likewise, as layers and horizons do."""
    x, y = generator.standard_t(2, size=(2, 40))
    features = {f"f{index}": x + 0.1 * generator.normal(size=40) for index in range(3)}
    return features, {f"o{index}": y + 0.1 * generator.normal(size=40) for index in range(2)}


def most_allowed(analyses):
    """False reports that a rate of α exceeds once in a thousand such tests."""
    return int(stats.binom(analyses, ALPHA).ppf(0.999))


@pytest.mark.parametrize("make", [independent_noise, dependent_noise])
def test_noise_is_reported_at_most_at_the_stated_rate(make):
    assert false_reports(range(100), make) <= most_allowed(100)


@pytest.mark.slow
@pytest.mark.parametrize("make", [independent_noise, dependent_noise])
def test_noise_is_reported_at_most_at_the_stated_rate_over_many_seeds(make):
    found = false_reports(range(1000, 2500), make)
    print(found / 1500)
    assert found <= most_allowed(1500)


def episodic_noise(generator):
    """12 decisions in each of 40 episodes; feature and outcome are constants of their episode."""
    episodes = np.repeat(np.arange(40), 12)
    x, y = generator.normal(size=(2, 40))
    return {"x": x[episodes]}, {"y": y[episodes]}, episodes


def test_decisions_of_one_episode_do_not_count_as_many():
    """Taken for independent they are reported far too often; one per episode at the stated rate."""
    naive, honest = 0, 0
    for seed in range(60):
        features, outcomes, episodes = episodic_noise(np.random.default_rng(seed))
        naive += bool(analyze_correlations(features, outcomes).found)
        report = analyze_correlations(features, outcomes, episodes=episodes)
        assert only(report).samples == 40
        honest += bool(report.found)
    assert naive > 30
    assert honest <= most_allowed(60)
