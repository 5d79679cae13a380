"""Cases follow from their numbers, and twins differ in the fault alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.bench.transfer import Case, faulty_cases, healthy_cases
from tamiyo.bench.transfer.faults import FAULTS, HEALTHY


@given(number=st.integers(0, 200), fault=st.sampled_from(FAULTS), steps=st.sampled_from([100, 800]))
def test_a_fault_strikes_where_and_when_it_may(number, fault, steps):
    [case] = faulty_cases(1, [fault], steps, first=number)
    assert case.number >= number
    assert case.layer in fault.places(case.host)
    assert case.injected().step == case.strike
    if fault.at_birth:
        assert case.strike == 0
    else:
        since = case.strike - case.watching.first_step(steps)
        assert since >= steps // 8
        assert case.strike <= steps // 2
    assert (case.layer, case.strike) == (Case(case.number, fault.name, steps).layer, case.strike)


def test_twins_share_everything_but_the_fault():
    [case] = faulty_cases(1, FAULTS[2:3], 100)
    twin = case.twin
    assert (twin.host, twin.watching, twin.steps) == (case.host, case.watching, case.steps)
    assert (twin.fault, twin.kind, twin.injected()) == (HEALTHY, None, None)
    assert twin.twin == twin
    assert twin.key != case.key


def test_healthy_runs_are_the_first_numbers():
    assert [case.number for case in healthy_cases(3, 50)] == [0, 1, 2]
    assert {case.fault for case in healthy_cases(3, 50)} == {HEALTHY}


def test_every_fault_gets_as_many_runs():
    cases = faulty_cases(4, FAULTS, 100)
    assert [case.fault for case in cases] == [fault.name for fault in FAULTS for _ in range(4)]
    assert len({case.key for case in cases}) == len(cases)


def test_a_host_that_is_not_hurt_makes_no_case():
    able = {case.number for case in faulty_cases(20, FAULTS[2:3])}
    unable = next(number for number in range(100) if number not in able)
    with pytest.raises(ValueError, match="cannot have the fault"):
        Case(unable, FAULTS[2].name)
    with pytest.raises(ValueError, match="has no fault"):
        _ = Case(0).strike
