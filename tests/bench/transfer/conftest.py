"""Rows and cases for the tests of the live gate."""

from dataclasses import replace
from itertools import count

import pytest

from tamiyo.bench.transfer import Act, Case, Row
from tamiyo.bench.transfer.faults import HEALTHY, fault_named
from tamiyo.bench.transfer.hosts import draw_host

NO_ACT = Act(
    step=200,
    adaptation="restore",
    target=(),
    parameters={"learning_rate_factor": 0.5},
    by="rules",
    confidence=1.0,
    reason="seen",
    outcome="kept",
    answer="",
)
NO_ROW = Row(
    number=0,
    fault=HEALTHY,
    steps=800,
    policy="rules",
    version="1",
    host={"family": "mlp", "data": "digits", "norm": False},
    watching={"reading": "every step", "late": False},
    strike=None,
    place=None,
    cures=(),
    acts=(),
    accuracy=0.9,
    loss=0.3,
    checksum="a",
    untouched=0.9,
    clean=0.9,
    same_bits=True,
)


@pytest.fixture
def act():
    """Makes a decision, by default a restore at step 200 that was kept."""
    return lambda **changes: replace(NO_ACT, **changes)


@pytest.fixture
def row():
    """Makes a row, by default of a healthy run in which nothing was done."""
    return lambda **changes: replace(NO_ROW, **changes)


@pytest.fixture
def find_case():
    """The first case with a fault whose host and way of being watched fulfil a condition."""

    def find(fault=HEALTHY, *, steps, where=lambda _case: True):
        able = fault_named(fault).places if fault != HEALTHY else lambda _host: True
        cases = (Case(number, fault, steps) for number in count() if able(draw_host(number)))
        return next(case for case in cases if where(case))

    return find
