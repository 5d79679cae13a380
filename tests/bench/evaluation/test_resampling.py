"""The bootstrap against scipy's, and against what is known of means of clusters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tamiyo.bench.evaluation.resampling import RESAMPLES, Figure, Resampler


def test_runs_that_are_seeds_of_their_own_give_the_ordinary_bootstrap():
    values = np.random.default_rng(0).exponential(size=60)
    figure = Resampler(np.arange(60)).mean(values)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # Two thousand resamples place a percentile within a few hundredths of its distance.
    tolerance = 0.08 * (expected.high - expected.low)
    assert figure.value == pytest.approx(values.mean())
    assert figure.low == pytest.approx(expected.low, abs=tolerance)
    assert figure.high == pytest.approx(expected.high, abs=tolerance)


def test_the_spread_of_resamples_is_that_of_clusters_and_of_runs_within_them():
    random = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), 8)
    values = random.normal(size=12)[clusters] + random.normal(0.0, 2.0, size=96)
    resampler = Resampler(clusters, resamples=40_000)
    means = resampler.weights[1:] @ values / 96
    groups = values.reshape(12, 8)
    # Variances of a mean of cluster means, drawn with replacement, and of the runs within each.
    expected = groups.mean(1).var() / 12 + groups.var(1).mean() / 96
    assert means.var() == pytest.approx(expected, rel=0.03)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 5))
def test_draws_are_counts_of_whole_clusters(clusters, seed):
    clusters = np.array(clusters)
    weights = Resampler(clusters, resamples=20, seed=seed).weights
    np.testing.assert_array_equal(weights[0], 1)
    assert (weights >= 0).all()
    np.testing.assert_array_equal(weights, np.round(weights))
    times = np.zeros(len(weights))
    for cluster in np.unique(clusters):
        rows = clusters == cluster
        drawn = weights[:, rows].sum(axis=1) / rows.sum()
        np.testing.assert_array_equal(drawn, np.round(drawn))
        times += drawn
    np.testing.assert_array_equal(times, len(np.unique(clusters)))


def test_pairs_share_their_draws():
    random = np.random.default_rng(0)
    one = random.normal(0.0, 100.0, size=40)
    resampler = Resampler(np.repeat(np.arange(5), 8))
    difference = resampler.mean((one + 1.0) - one)
    assert (difference.low, difference.high) == (pytest.approx(1.0), pytest.approx(1.0))
    share = resampler.ratio(0.9 * one, one)
    assert (share.low, share.high) == (pytest.approx(0.9), pytest.approx(0.9))


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=20)
    clusters = np.repeat(np.arange(4), 5)
    assert Resampler(clusters).mean(values) == Resampler(clusters).mean(values)
    assert Resampler(clusters).mean(values) != Resampler(clusters, seed=1).mean(values)
    assert len(Resampler(clusters).weights) == RESAMPLES + 1


def test_a_mean_over_some_of_the_runs_is_theirs():
    values, among = np.array([1.0, 5.0, 3.0, 100.0]), np.array([True, True, True, False])
    figure = Resampler(np.array([0, 0, 1, 1])).means({"some": (values, among)})["some"]
    assert figure.value == 3.0
    assert figure.count == 3
    assert 1.0 <= figure.low <= 3.0 <= figure.high <= 5.0


def test_nothing_to_average_is_unknown_and_not_zero():
    nobody = (np.ones(3), np.zeros(3, bool))
    figure = Resampler(np.zeros(3, int)).means({"nobody": nobody})["nobody"]
    assert np.isnan([figure.value, figure.low, figure.high]).all()
    assert figure.as_json() == {"value": None, "low": None, "high": None, "count": 0}
    with pytest.raises(ValueError, match="no runs"):
        Resampler(np.zeros(0, int))


def test_resamples_without_a_value_do_not_count():
    resampler = Resampler(np.array([0, 1]), resamples=3)
    figure = resampler.figure(np.array([0.5, np.nan, 0.2, 0.8]), 2)
    assert figure == Figure(0.5, pytest.approx(0.215), pytest.approx(0.785), 2)


def test_intervals_of_clustered_runs_hold_the_truth_about_as_often_as_they_say():
    random, held = np.random.default_rng(5), 0
    clusters = np.repeat(np.arange(20), 8)
    for trial in range(300):
        values = random.normal(size=20)[clusters] + random.normal(size=160)
        figure = Resampler(clusters, resamples=400, seed=trial).mean(values)
        held += figure.low <= 0.0 <= figure.high
    # Percentile intervals of twenty clusters are a little too narrow.
    assert 0.90 <= held / 300 <= 0.98
