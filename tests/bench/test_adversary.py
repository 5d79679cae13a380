"""The adversary's own arithmetic, and what the governor must achieve against it."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from tamiyo.bench.adversary import Assessment, Case, Record, run
from tamiyo.bench.adversary.__main__ import experiment
from tamiyo.bench.adversary.assessment import clopper_pearson
from tamiyo.bench.adversary.catalogue import ALWAYS, HARMFUL, HARMLESS, adaptation
from tamiyo.bench.adversary.plan import attacks, healthy, mixed, twins
from tamiyo.bench.adversary.report import report
from tamiyo.bench.adversary.subjects import SUBJECTS, subject

QUICK = [kind for kind in SUBJECTS if not kind.slow]


@settings(max_examples=30)
@given(trials=st.integers(1, 400), share=st.floats(0, 1), confidence=st.floats(0.5, 0.99))
def test_an_interval_leaves_out_what_is_unlikely(trials, share, confidence):
    successes = round(share * trials)
    low, high = clopper_pearson(successes, trials, confidence)
    tail = (1 - confidence) / 2
    assert 0 <= low <= successes / trials <= high <= 1
    if successes:
        assert binom.sf(successes - 1, trials, low) == pytest.approx(tail, rel=1e-6)
    if successes < trials:
        assert binom.cdf(successes, trials, high) == pytest.approx(tail, rel=1e-6)


def record(arm, final, *, outcome="", name="", seed=0, **changes):
    case = Case(arm, "mlp-sgd", seed, name, 50 if name else 0)
    return Record(case, final=final, outcome=outcome, **changes)


TWINS = [record("twin", 0.10 + 0.001 * seed, seed=seed) for seed in range(12)]
BAD = "all weights zero"


@pytest.mark.parametrize(
    ("outcome", "left_alone", "recall"),
    [
        ("rolled_back", 2.3, (1, 1)),
        ("rolled_back", float("inf"), (1, 1)),
        ("rolled_back", 0.101, (0, 0)),
        ("kept", 2.3, (0, 1)),
        ("failed", 2.3, (0, 1)),
        ("refused", 2.3, (0, 0)),
    ],
)
def test_what_hurts_is_told_by_the_run_that_was_left_alone(outcome, left_alone, recall):
    governed = record("governed", left_alone, outcome=outcome, name=BAD, identical=True)
    alone = record("alone", left_alone, outcome="applied", name=BAD)
    shares = Assessment([*TWINS, replace(governed), alone]).recall()
    assert (shares.count, shares.total) == recall


def test_a_rollback_that_is_not_exact_is_not_one():
    governed = record(
        "governed", 1.0, outcome="rolled_back", name=BAD, identical=False, verified=True
    )
    alone = record("alone", 2.3, outcome="applied", name=BAD)
    assessment = Assessment([*TWINS, governed, alone])
    assert (assessment.always().count, assessment.exact().count) == (0, 0)
    assert assessment.recall().count == 1


def test_a_harmless_adaptation_that_is_taken_back_is_counted():
    governed = record("governed", 0.1, outcome="rolled_back", name="widen", identical=True)
    alone = record("alone", 0.1, outcome="applied", name="widen")
    assert Assessment([*TWINS, governed, alone]).false_rollbacks().count == 1


def test_every_name_in_the_catalogue_is_one_adaptation():
    names = [entry.name for entry in (*HARMFUL, *HARMLESS)]
    assert len(set(names)) == len(names)
    assert all(adaptation(name).strike for name in ALWAYS)


def test_the_plan_is_large_enough_and_mixes_well():
    assert len(attacks()) > 1000
    assert len(healthy()) > 300
    plan = mixed(healthy(), attacks())
    assert len({case.key for case in plan}) == len(plan)
    assert {case.subject for case in plan[:200]} == {kind.name for kind in SUBJECTS}


def test_an_interrupted_experiment_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "records.jsonl"
    case = Case("governed", "mlp-cancer", 0, "all weights NaN", 40)
    whole = experiment([case], path)
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == len(whole) == 2
    path.write_text(lines[0] + lines[1][:20])
    again = experiment([case], path)
    assert [left.case for left in again] == [left.case for left in whole]
    assert json.loads(path.read_text().splitlines()[0]) == json.loads(lines[0])


def test_the_same_case_gives_the_same_run():
    case = Case("governed", "mlp-cancer", 3, "one layer shuffled", 45)
    first, second = (replace(run(case), seconds=0.0) for _ in range(2))
    assert repr(first) == repr(second)


def test_an_attacked_run_is_its_twin_until_the_attack():
    nothing = Case("governed", "mlp-cancer", 3, "rate × 1", 45)
    assert run(nothing).final == run(Case("twin", "mlp-cancer", 3)).final


@pytest.mark.parametrize("name", ALWAYS)
def test_what_must_come_back_comes_back_bit_for_bit(name):
    where = "cnn-norm-adam" if "normalisation" in name else "mlp-sgd"
    attacked = run(Case("governed", where, 1, name, 60))
    assert attacked.outcome == "rolled_back"
    assert attacked.identical
    assert attacked.verified
    assert (attacked.raised, attacked.faults) == (0, 0)


def test_a_rollback_leaves_a_run_that_learns_as_well_as_before():
    attacked = run(Case("governed", "mlp-sgd", 1, "all weights redrawn", 60), to_the_end=True)
    assert attacked.outcome == "rolled_back"
    assert attacked.final < 1.5 * run(Case("twin", "mlp-sgd", 1)).final


def test_strikes_leave_the_random_state_alone():
    before = torch.get_rng_state()
    run(Case("governed", "mlp-cancer", 3, "noise of 1 σ", 45))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_a_smaller_experiment_keeps_every_promise(tmp_path):
    few = [subject(name) for name in ("mlp-sgd", "mlp-adam", "mlp-cancer", "cnn-sgd")]
    cases = [*twins(8, few), *healthy(1, few), *attacks(1, few)[::2]]
    assessment = Assessment(experiment(cases, tmp_path / "records.jsonl"))
    assert assessment.always().count == assessment.always().total > 8
    recall = assessment.recall()
    assert recall.count >= 0.9 * recall.total > 30
    exact = assessment.exact()
    assert exact.count == exact.total
    assert assessment.raised().count == assessment.false_rollbacks().count == 0
    assert "missed" in report(assessment)
