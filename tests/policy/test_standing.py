"""A proposal is done once it has been the same for long enough, on every look."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiyo.contracts import AdaptationDecision
from tamiyo.policy.protocol import Verdict
from tamiyo.policy.standing import StandingProposals


@pytest.fixture
def see(make_topology, make_state):
    topology = make_topology(3)

    def make(step):
        return make_state(topology, {0: {"health_score": 0.9}}, step=step)

    return make


def propose(step, adaptation="reinitialize", target=(2,), run="run"):
    decision = AdaptationDecision(
        decision_id=f"{run}-{step}",
        run=run,
        adaptation=adaptation,
        target=target,
        expires_at_step=step + 100,
    )
    return Verdict(decision, "because")


def play(see, steps, proposals):
    """Steps at which something is decided."""
    standing = StandingProposals(10)
    return [
        step
        for step, proposal in zip(steps, proposals, strict=True)
        if standing.confirmed(see(step), proposal).decision is not None
    ]


def test_it_is_done_after_so_many_steps_and_has_to_stand_anew_after_that(see):
    steps = range(1, 40)
    assert play(see, steps, map(propose, steps)) == [11, 22, 33]


def test_two_looks_that_are_far_apart_are_enough(see):
    assert play(see, [50, 90], [propose(50), propose(90)]) == [90]


def test_a_single_look_is_not(see):
    standing = StandingProposals(10)
    verdict = standing.confirmed(see(500), propose(500))
    assert verdict.decision is None
    assert verdict.pressing
    assert verdict.reason == "reinitialize has been proposed for 0 steps, not 10"
    assert dataclasses.astuple(verdict)[2][-1][1:] == (False, 0, 10)


@pytest.mark.parametrize(
    "between",
    [
        Verdict(None, "nothing to do"),
        propose(5, target=(1,)),
        propose(5, adaptation="prune"),
    ],
)
def test_what_was_dropped_or_replaced_begins_again(see, between):
    proposals = [propose(0), between, propose(10), propose(20)]
    assert play(see, [0, 5, 10, 20], proposals) == [20]


def test_a_run_that_went_back_begins_again(see):
    assert play(see, [100, 20, 25, 30], map(propose, [100, 20, 25, 30])) == [30]


def test_runs_do_not_confirm_each_other(make_topology, make_state):
    standing = StandingProposals(10)
    one, other = (
        make_state(make_topology(3).model_copy(update={"run": run}), {0: {}}, step=20)
        for run in ("one", "other")
    )
    assert standing.confirmed(one, propose(0, run="one")).decision is None
    assert standing.confirmed(other, propose(20, run="other")).decision is None


def test_without_a_delay_everything_is_done_at_once(see):
    verdict = StandingProposals(0).confirmed(see(3), propose(3))
    assert verdict.decision is not None
    assert verdict.checks[-1].passed


@given(steps=st.lists(st.integers(0, 60), min_size=1, unique=True).map(sorted))
def test_nothing_is_done_that_was_not_proposed_for_long_enough(steps):
    class State:
        topology = None

    standing, since = StandingProposals(10), steps[0]
    for step in steps:
        State.step = step
        decided = standing.confirmed(State, propose(step)).decision is not None
        assert decided == (step - since >= 10)
        if decided:
            since = steps[steps.index(step) + 1] if step != steps[-1] else step
