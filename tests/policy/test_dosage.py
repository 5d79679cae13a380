"""Doses follow from measurements: their values at known points, and what holds for all."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.host.actions import ACTIONS
from tamiyo.host.units import unit_share
from tamiyo.policy import dosage

ratios = st.floats(1e-12, 1e6)
widths = st.integers(1, 4096)


@pytest.mark.parametrize(
    ("ratio", "factor"),
    [
        (3e-3, 0.1),
        (0.3, 0.01),
        (2e-5, 100.0),
        (1e-9, 1e3),
        (1e3, 1e-3),
        (math.nan, 0.1),
        (math.inf, 0.1),
        (0.0, 0.1),
    ],
)
def test_a_learning_rate_moves_by_powers_of_ten_towards_its_goal(ratio, factor):
    assert dosage.rate_factor(ratio, 3e-3) == pytest.approx(factor)


@given(ratios, ratios)
def test_a_factor_is_what_the_host_takes_and_leads_within_half_a_decade(ratio, goal):
    factor = dosage.rate_factor(ratio, goal)
    ACTIONS["scale_learning_rate"].rules["factor"].check("factor", factor)
    assert factor != 1.0
    decades = math.log10(goal / ratio)
    if 0.51 < abs(decades) < 3.49:
        assert abs(math.log10(ratio * factor / goal)) <= 0.5 + 1e-9
    elif abs(decades) < 0.49:
        assert factor == 0.1


def test_a_run_follows_its_median_layer_and_a_layer_the_others():
    measured = np.array([np.nan, 3e-5, 3e-5, 3e-2, np.inf, np.nan])
    assert dosage.run_rate_factor(measured) == pytest.approx(100.0)
    assert dosage.layer_rate_factor(3e-2, measured) == pytest.approx(1e-3)
    assert dosage.layer_rate_factor(3e-5, measured) == pytest.approx(0.1)
    nothing = np.full(3, np.nan)
    assert dosage.run_rate_factor(nothing) == dosage.layer_rate_factor(1e-3, nothing) == 0.1


@given(st.integers(1, 200), st.integers(1, 200), st.floats(0.1, 100))
def test_the_size_of_weights_does_not_depend_on_the_shape_of_the_layer(inputs, units, scale):
    # Root-mean-square weight `scale / sqrt(inputs)`, whatever the shape.
    norm = scale / math.sqrt(inputs) * math.sqrt(inputs * units)
    if abs(scale / dosage.TOO_LARGE - 1.0) > 1e-9:
        assert dosage.is_too_large(norm, units) == (scale > dosage.TOO_LARGE)


def test_weights_that_were_not_measured_are_not_called_too_large():
    assert not dosage.is_too_large(math.nan, 8)


@given(st.lists(widths, min_size=1, max_size=12), st.data())
def test_a_layer_grows_at_least_to_the_typical_width(others, data):
    width = data.draw(st.sampled_from(others))
    more = dosage.units_to_add(width, others)
    assert more >= 1
    assert (
        more == max(1, round(0.25 * width))
        or width + more == sorted(others)[(len(others) - 1) // 2]
    )
    # The host reads 1 and more as a number of units, and so adds just as many.
    assert unit_share(float(more), width) == more


@given(st.integers(2, 4096))
def test_a_layer_keeps_half_of_its_units_and_the_host_agrees(width):
    removed = dosage.units_to_remove(width)
    assert 1 <= removed < width
    assert removed == min(unit_share(dosage.PRUNE_SHARE, width), width - 1)


def test_a_leaky_activation_is_not_replaced_by_itself():
    assert dosage.new_activation("relu") == dosage.new_activation(None) == "leaky_relu"
    assert dosage.new_activation("leaky_relu") == "elu"
