"""Calibration error against scikit-learn's calibration curve, AUROC against its `roc_auc_score`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from tamiyo.bench.evaluation.calibration import Bins, auroc, equal_mass_edges, equal_width_edges


@pytest.fixture(scope="module")
def samples():
    """Decisions of 40 runs with ties among the confidences."""
    random = np.random.default_rng(0)
    run = np.sort(random.integers(40, size=600))
    confidence = np.round(random.beta(0.5, 1.5, size=600), 2)
    right = random.random(600) < confidence**1.5
    return run, confidence, right


@pytest.mark.parametrize(
    ("strategy", "edges", "bins"),
    [("uniform", lambda _: equal_width_edges(10), 10), ("quantile", equal_mass_edges, 15)],
)
def test_the_bins_are_those_of_scikit_learn(samples, strategy, edges, bins):
    run, confidence, right = samples
    table = Bins.of(run, confidence, right, edges(confidence), 40)
    rows = table.reliability()
    frequency, mean = calibration_curve(right, confidence, n_bins=bins, strategy=strategy)
    np.testing.assert_allclose([row["frequency"] for row in rows], frequency)
    np.testing.assert_allclose([row["confidence"] for row in rows], mean)
    counts = np.array([row["count"] for row in rows])
    expected = (np.abs(frequency - mean) * counts).sum() / len(run)
    np.testing.assert_allclose(table.error(np.ones((1, 40))), expected)


def test_weights_count_runs_as_often_as_they_were_drawn(samples):
    run, confidence, right = samples
    edges = equal_width_edges()
    table = Bins.of(run, confidence, right, edges, 40)
    drawn = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40))
    again = np.repeat(np.arange(len(run)), drawn[run])
    copied = Bins.of(run[again], confidence[again], right[again], edges, 40)
    np.testing.assert_allclose(table.error(drawn[None]), copied.error(np.ones((1, 40))))


def test_a_perfect_confidence_has_no_error_and_a_lie_all_of_it():
    run, right = np.arange(4), np.array([True, True, False, False])
    ones = np.ones((1, 4))
    edges = equal_width_edges()
    assert Bins.of(run, right.astype(float), right, edges, 4).error(ones) == 0
    assert Bins.of(run, 1.0 - right, right, edges, 4).error(ones) == 1
    assert np.isnan(Bins.of(run[:0], ones[0, :0], right[:0], edges, 4).error(ones)).all()


@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), st.booleans()),
        min_size=10,
        max_size=60,
    ),
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_auroc_equals_that_of_scikit_learn(rows, weights):
    run, score, positive = (np.array(column) for column in zip(*rows, strict=True))
    drawn = np.array(weights)[run]
    [plain, weighted] = auroc(np.array([np.ones(8), weights]), run, score, positive)
    if min(positive.sum(), (~positive).sum()) < 5:
        assert np.isnan([plain, weighted]).all()
        return
    assert plain == pytest.approx(roc_auc_score(positive, score))
    if drawn[positive].sum() and drawn[~positive].sum():
        expected = roc_auc_score(positive, score, sample_weight=drawn)
        assert weighted == pytest.approx(expected)
    else:
        assert np.isnan(weighted)


def test_auroc_of_many_weights_does_not_depend_on_how_they_are_split(samples, monkeypatch):
    run, confidence, right = samples
    weights = np.random.default_rng(2).integers(0, 3, size=(50, 40)).astype(float)
    whole = auroc(weights, run, confidence, right)
    monkeypatch.setattr("tamiyo.bench.evaluation.calibration.CHUNK", 1000)
    np.testing.assert_array_equal(auroc(weights, run, confidence, right), whole)
