"""The test agrees with scipy's, and both it and the effect size are asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from tamiyo.bench.faults.validity import ALPHA, POINTS, compare

accuracies = st.floats(0, 1).map(lambda value: round(value, 3))


@given(clean=st.lists(accuracies, min_size=2, max_size=12), accuracy=accuracies)
def test_it_is_the_t_test_of_a_sample_of_one(clean, accuracy):
    found = compare(accuracy, clean)
    if max(clean) - min(clean) < 1e-6:
        assert found.p_value == (0.0 if found.lost > 0 else 1.0)
        return
    reference = ttest_ind(clean, [accuracy], alternative="greater")
    assert found.p_value == pytest.approx(float(reference.pvalue), rel=1e-6, abs=1e-12)


@given(clean=st.lists(accuracies, min_size=3, max_size=12), accuracy=accuracies)
def test_a_faulty_run_is_worse_beyond_doubt_and_by_enough(clean, accuracy):
    found = compare(accuracy, clean)
    assert found.faulty == (found.p_value < ALPHA and found.lost >= POINTS)
    assert compare(max(clean), clean).faulty is False


def test_equal_twins_and_large_scatter():
    assert compare(0.9, [0.95] * 10).faulty
    assert not compare(0.94, [0.95] * 10).faulty  # too little
    assert not compare(0.6, [0.5, 0.9] * 5).faulty  # no wonder


def test_one_twin_is_none():
    with pytest.raises(ValueError, match="fewer than two"):
        compare(0.5, [0.9])
