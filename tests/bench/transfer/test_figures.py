"""Shares and differences are counted right, with intervals that references confirm."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.bench.transfer.figures import (
    HARM,
    false_alarms,
    faulty_figures,
    healthy_figures,
    wilson,
)


@given(total=st.integers(1, 500), share=st.floats(0, 1))
def test_wilsons_interval_holds_the_shares_that_a_score_test_does_not_reject(total, share):
    count = round(share * total)
    figure = wilson(count, total)
    assert figure.count == total
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    # Its ends are where the observed share is 1.96 standard errors of *that* share away.
    for end in (figure.low, figure.high):
        if 0 < end < 1:
            distance = abs(count / total - end) / math.sqrt(end * (1 - end) / total)
            assert distance == pytest.approx(1.959964, rel=1e-5)
    # Whoever counts the opposite gets the opposite.
    assert wilson(total - count, total).low == pytest.approx(1 - figure.high, abs=1e-12)


def test_a_known_interval():
    figure = wilson(2, 48)
    # Newcombe, Statistics in Medicine 17, 1998, equation of method 3, by hand.
    assert (figure.low, figure.high) == (
        pytest.approx(0.0115, abs=1e-4),
        pytest.approx(0.1397, abs=1e-4),
    )


def test_nothing_is_known_of_nothing():
    assert math.isnan(wilson(0, 0).value)


def test_healthy_runs_are_counted(row, act):
    rows = [
        *(row(number=number) for number in range(6)),
        row(number=6, acts=(act(outcome="refused"),)),
        row(number=7, acts=(act(),), accuracy=0.8, same_bits=False),
        row(number=8, acts=(act(outcome="rolled_back"),), same_bits=False),
        row(number=9, same_bits=False, problems=("a warning",)),
    ]
    found = healthy_figures(rows)
    shares = {name: found[name].value for name in ("decided", "done", "kept", "troubled")}
    assert shares == {"decided": 0.3, "done": 0.2, "kept": 0.1, "troubled": 0.1}
    assert found["difference"].value == pytest.approx(-0.01)
    assert found["difference"].low < -0.01 < found["difference"].high <= 0
    assert found["difference_done"].value == pytest.approx(-0.05)
    # Of the eight in which nothing was done.
    assert (found["disturbed"].value, found["disturbed"].count) == (1 / 8, 8)
    assert [alarm[0].number for alarm in false_alarms(rows)] == [7, 8]


def test_runs_that_end_alike_differ_by_exactly_nothing(row):
    figure = healthy_figures([row(number=n) for n in range(5)])["difference"]
    assert (figure.value, figure.low, figure.high) == (0, 0, 0)


def test_recovery_is_of_what_was_lost_where_it_was_lost(row, act):
    cure = (("restore", None),)

    def faulty(number, untouched, accuracy, *acts):
        return row(
            number=number, fault="NaN weight", strike=100, cures=cure, clean=0.9,
            untouched=untouched, accuracy=accuracy, acts=acts,
        )  # fmt: skip

    rows = [
        faulty(0, 0.1, 0.9, act()),
        faulty(1, 0.1, 0.5, act(adaptation="prune", target=("output",))),
        faulty(2, 0.5, 0.5),
        faulty(3, 0.7, 0.7, act(step=50)),
        # No harm was done, so that there is nothing to be right about.
        faulty(4, 0.9 - HARM / 2, 0.2, act()),
    ]
    found = faulty_figures(rows)
    assert (found["harmed"].value, found["acted"].count) == (0.8, 4)
    assert found["lost"].value == pytest.approx((0.8 + 0.8 + 0.4 + 0.2) / 4)
    assert (found["acted"].value, found["right"].value) == (0.5, 0.25)
    assert found["recovered"].value == pytest.approx(1.2 / 2.2)
    assert found["recovered"].low < 1.2 / 2.2 < found["recovered"].high
    assert found["early"].value == 0.2


def test_a_fault_that_never_harms_says_nothing(row):
    found = faulty_figures([row(fault="NaN weight", strike=100)])
    assert found["harmed"].value == 0
    assert all(math.isnan(found[name].value) for name in ("lost", "acted", "right", "recovered"))
