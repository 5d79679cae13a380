"""A live run is repeatable, is its own twin until something happens, and hides no trouble."""

import logging

import pytest
import torch

from tamiyo.bench.transfer import live, play
from tamiyo.bench.transfer.deciders import WAIT
from tamiyo.contracts import Outcome
from tamiyo.policy import RulesPolicy

STEPS = 240


def small(case):
    """A case whose course does not depend on the clock, and whose steps are quick."""
    return case.watching.reading != "by default" and case.host.width <= 64


@pytest.mark.parametrize("late", [False, True])
def test_watching_alone_changes_nothing_bit_for_bit(find_case, late):
    case = find_case(steps=60, where=lambda c: small(c) and c.watching.late is late)
    alone = play(case, "none")
    watched = play(case, "rules", alone)
    assert watched.same_bits
    assert (watched.accuracy, watched.untouched, watched.clean) == (alone.accuracy,) * 3
    assert (watched.acts, watched.problems, watched.strike) == ((), (), None)
    every = case.watching.options(60)["probe_every"]
    reachable = 60 - case.watching.first_step(60)
    assert 0 < watched.readings <= reachable // every
    assert alone.same_bits
    assert (alone.version, alone.readings) == ("", None)


def test_another_run_has_another_checksum(find_case):
    case = find_case(steps=60, where=small)
    other = find_case(steps=60, where=lambda c: small(c) and c.number > case.number)
    assert not play(other, "none", play(case, "none")).same_bits


def test_the_same_case_gives_the_same_row(find_case):
    case = find_case("NaN weight", steps=STEPS, where=small)
    clean = play(case.twin, "none")
    alone = play(case, "none", clean=clean)
    first, second = (play(case, "rules", alone, clean) for _ in range(2))
    assert first == second
    assert first.acts


def test_a_faulty_run_is_recorded_with_its_cure(find_case):
    case = find_case("NaN weight", steps=STEPS, where=lambda c: small(c) and not c.watching.late)
    clean = play(case.twin, "none")
    alone = play(case, "none", clean=clean)
    cured = play(case, "rules", alone, clean)
    assert alone.accuracy < clean.accuracy
    assert alone.loss is None
    assert (cured.untouched, cured.clean) == (alone.accuracy, clean.accuracy)
    assert cured.accuracy > alone.accuracy
    assert (cured.strike, cured.cures) == (case.strike, (("restore", None),))
    assert cured.right
    assert (cured.first.by, cured.first.adaptation) == ("rules", "restore")
    assert cured.first.step > case.strike


def test_steps_are_those_of_the_run_where_tamiyo_came_late(find_case):
    case = find_case("zero layer", steps=STEPS, where=lambda c: small(c) and c.watching.late)
    clean = play(case.twin, "none")
    told = play(case, "oracle", play(case, "none", clean=clean), clean)
    assert STEPS >= told.first.step > STEPS // 4
    assert told.right


@pytest.mark.parametrize("late", [False, True])
def test_the_oracle_waits_until_the_governor_has_seen_the_fault(find_case, late):
    def where(case):
        watching = case.watching
        return watching.reading == "every step" and watching.late is late and small(case)

    often = find_case("dying ReLU", steps=STEPS, where=where)
    clean = play(often.twin, "none")
    told = play(often, "oracle", play(often, "none", clean=clean), clean)
    assert told.first.step == often.strike + WAIT + 1


def test_the_oracle_cures_the_layer_that_it_is_told_of_once(find_case):
    case = find_case("zero layer", steps=STEPS, where=small)
    clean = play(case.twin, "none")
    told = play(case, "oracle", play(case, "none", clean=clean), clean)
    [act] = told.acts
    assert (act.adaptation, act.target, act.by) == ("reinitialize", (told.place,), "oracle")
    assert act.outcome in {Outcome.KEPT, Outcome.ROLLED_BACK}
    assert told.right


def test_the_oracle_leaves_healthy_runs_alone(find_case):
    case = find_case(steps=60, where=small)
    assert play(case, "oracle", play(case, "none")).acts == ()


class Fails(RulesPolicy):
    """A policy that breaks."""

    def decide(self, state):
        raise ZeroDivisionError("a broken policy")


def test_a_policy_that_fails_is_put_down(find_case, monkeypatch):
    case = find_case(steps=60, where=small)
    monkeypatch.setattr(live, "make_policy", lambda _name: Fails())
    row = play(case, "rules", play(case, "none"))
    assert any("a broken policy" in problem for problem in row.problems)
    assert row.same_bits
    assert logging.getLogger("tamiyo").propagate
    assert not logging.getLogger("tamiyo").handlers


def test_an_exception_in_the_loop_is_put_down(find_case, monkeypatch):
    case = find_case(steps=60, where=small)
    alone = play(case, "none")

    def fail(*_args, **_options):
        raise RuntimeError("attaching failed")

    monkeypatch.setattr(live, "attach", fail)
    row = play(case, "rules", alone)
    assert "attaching failed" in row.problems[0]
    assert not row.same_bits
    assert 0 <= row.accuracy <= 1


def test_rows_to_compare_with_are_asked_for(find_case):
    healthy, faulty = find_case(steps=60), find_case("NaN weight", steps=60)
    with pytest.raises(ValueError, match="nothing to compare"):
        play(healthy, "rules")
    with pytest.raises(ValueError, match="nothing to compare"):
        play(faulty, "none")


def test_the_random_state_of_the_caller_is_left_alone(find_case):
    torch.manual_seed(4711)
    before = torch.get_rng_state()
    play(find_case(steps=60, where=small), "none")
    assert torch.equal(torch.get_rng_state(), before)
