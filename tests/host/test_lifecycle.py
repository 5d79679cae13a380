import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.host.lifecycle import (
    SCHEDULES,
    TRANSITIONS,
    IllegalTransitionError,
    Stage,
    transition,
)

LEGAL = {
    ("dormant", "germinated"),
    ("germinated", "training"),
    ("germinated", "culled"),
    ("germinated", "rolled_back"),
    ("training", "blending"),
    ("training", "culled"),
    ("training", "rolled_back"),
    ("blending", "holding"),
    ("blending", "culled"),
    ("blending", "rolled_back"),
    ("holding", "permanent"),
    ("holding", "blending"),
    ("holding", "culled"),
    ("holding", "rolled_back"),
    ("permanent", "blending"),
    ("permanent", "rolled_back"),
}


@pytest.mark.parametrize(("now", "to"), sorted(LEGAL))
def test_each_legal_transition_is_allowed(now, to):
    assert transition(Stage(now), Stage(to)) is Stage(to)


@pytest.mark.parametrize(("now", "to"), sorted(set(itertools.product(Stage, Stage)) - LEGAL))
def test_each_other_transition_is_an_error(now, to):
    with pytest.raises(IllegalTransitionError, match=f"from {now} to {to}"):
        transition(now, to)


def test_the_table_covers_every_stage_and_only_removal_ends_a_seed():
    assert set(TRANSITIONS) == set(Stage)
    for stage, following in TRANSITIONS.items():
        assert stage.ended == (not following)


def test_every_stage_can_be_reached():
    reached = {Stage.DORMANT}
    for _ in Stage:
        reached |= {to for now in reached for to in TRANSITIONS[now]}
    assert reached == set(Stage)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_rises_from_exactly_zero_to_exactly_one(name):
    schedule = SCHEDULES[name]
    assert schedule(0.0) == 0.0
    assert schedule(1.0) == 1.0
    assert schedule(0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("name", SCHEDULES)
@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_a_schedule_never_falls_and_is_symmetric(name, a, b):
    low, high = sorted((a, b))
    schedule = SCHEDULES[name]
    assert 0.0 <= schedule(low) <= schedule(high) <= 1.0
    assert schedule(1 - a) == pytest.approx(1 - schedule(a), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "quarter"), [("linear", 0.25), ("cosine", 0.14645), ("sigmoid", 0.045)]
)
def test_schedules_have_their_shape(name, quarter):
    assert SCHEDULES[name](0.25) == pytest.approx(quarter, rel=0.02)
