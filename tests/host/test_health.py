import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.host.health import BANDS, health_scores, relative_gradients

HEALTHY = {
    "dead_neuron_ratio": 0.1,
    "gradient_norm": 1.0,
    "update_ratio": 1e-3,
    "saturation": 0.0,
    "activation_variance": 1.0,
}


def scores(errors=0, **changes):
    """Health of the first of two layers; the second one is healthy."""
    columns = {name: np.array([changes.get(name, value), value]) for name, value in HEALTHY.items()}
    score, measured = health_scores(columns, np.array([10, 10]), np.array([errors, 0]))
    return score[0], measured[0]


def test_a_healthy_layer_scores_one():
    assert scores() == (1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("dead_neuron_ratio", 0.7), ("update_ratio", 10.0), ("update_ratio", 1e-9), ("saturation", 1)],
)
def test_beyond_a_failing_bound_the_score_is_zero(name, value):
    assert scores(**{name: value})[0] == 0


def test_errors_make_it_zero_and_missing_inputs_are_left_out():
    assert scores(errors=1)[0] == 0
    score, measured = scores(update_ratio=np.nan, saturation=np.nan)
    assert (score, measured) == (1.0, pytest.approx(3 / 5))
    nothing = {name: np.array([np.nan]) for name in HEALTHY}
    score, measured = health_scores(nothing, np.array([1]), np.array([0]))
    assert np.isnan(score[0])
    assert measured[0] == 0


@given(st.sampled_from(sorted(BANDS)), st.floats(0, 1e30), st.floats(1.0, 10.0))
def test_sub_scores_fall_steadily_away_from_the_band(name, value, factor):
    band = BANDS[name]
    low, high = band.score(np.array([value, value * factor]))
    assert 0 <= low <= 1
    if value >= band.high:
        assert high <= low
    if value * factor <= band.low:
        assert high >= low


def test_gradients_are_relative_to_the_median_and_to_size():
    ratios = relative_gradients(np.array([1.0, 2.0, np.nan, 1.0]), np.array([1.0, 4.0, 1.0, 1.0]))
    np.testing.assert_allclose(ratios, [1, 1, np.nan, 1])
    assert np.isnan(relative_gradients(np.array([1.0]), np.array([1.0]))).all()
    assert np.isnan(relative_gradients(np.zeros(3), np.ones(3))).all()
