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


def test_the_spread_of_resamples_is_what_clusters_say_of_their_mean():
    random = np.random.default_rng(0)
    clusters = np.repeat(np.arange(6), 8)
    values = random.normal(size=6)[clusters] + random.normal(0.0, 2.0, size=48)
    resampler = Resampler(clusters, resamples=40_000)
    means = resampler.weights[1:] @ values / resampler.weights[1:].sum(axis=1)
    # The unbiased estimate, although there are few.
    expected = values.reshape(6, 8).mean(1).var(ddof=1) / 6
    assert means.var() == pytest.approx(expected, rel=0.03)
    assert means.mean() == pytest.approx(values.mean(), abs=0.01)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 5))
def test_draws_are_counts_of_whole_clusters(clusters, seed):
    clusters = np.array(clusters)
    weights = Resampler(clusters, resamples=20, seed=seed).weights
    np.testing.assert_array_equal(weights[0], 1)
    assert (weights >= 0).all()
    names = np.unique(clusters)
    # A seed alone says nothing of other seeds: its runs are drawn.
    if len(names) == 1:
        clusters = names = np.arange(len(clusters))
    times = np.stack([weights[1:, clusters == name].max(axis=1) for name in names], axis=1)
    np.testing.assert_array_equal(weights[1:], times[:, np.searchsorted(names, clusters)])
    np.testing.assert_array_equal(times.sum(axis=1), max(len(names) - 1, 1))


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
    clusters = np.repeat(np.arange(10), 2)
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


@pytest.mark.parametrize(("clusters", "alike"), [(10, 0.0), (10, 1.0), (40, 0.0), (40, 1.0)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(clusters, alike):
    random, held, trials = np.random.default_rng(5), 0, 400
    cluster_of = np.repeat(np.arange(clusters), 8)
    for trial in range(trials):
        values = alike * random.normal(size=clusters)[cluster_of] + random.normal(size=8 * clusters)
        figure = Resampler(cluster_of, resamples=400, seed=trial).mean(values)
        held += figure.low <= 0.0 <= figure.high
    # Percentile intervals of ten clusters are a little too narrow, as Student's t says.
    assert 0.90 <= held / trials <= 0.98
