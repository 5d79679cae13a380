"""Bars: what reaches them, what misses them and by how much."""

import math

import pytest

from tamiyo.bench.evaluation.bars import BARS, Bar, Judgement, judge, not_judged
from tamiyo.bench.evaluation.resampling import Figure
from tamiyo.bench.evaluation.result import CohortResult, SplitResult
from tamiyo.bench.evaluation.splits import SPLITS

GOOD = {
    "objective": Figure(0.30, 0.27, 0.33, 320),
    "decision_accuracy": Figure(0.90, 0.85, 0.95, 150),
    "false_alarms": Figure(0.01, 0.00, 0.03, 170),
    "objective_healthy": Figure(0.001, -0.002, 0.004, 170),
    "ece": Figure(0.02, 0.01, 0.04, 5000),
    "ece_width": Figure(0.02, 0.01, 0.04, 5000),
    "auroc": Figure(0.85, 0.80, 0.90, 5000),
}


def result(split="validation", share=0.9, rules=(0.10, 0.08, 0.12), **learned):
    def cohort(figures):
        return CohortResult(figures, {}, {}, {"mass": [], "width": []})

    cohorts = {
        "no-op": cohort({"objective": Figure(0.0, 0.0, 0.0, 320)}),
        "rules": cohort({"objective": Figure(*rules, 320)}),
        "learned": cohort(GOOD | learned),
    }
    pairs = {"learned / oracle": Figure(share, share - 0.05, share + 0.05, 320)}
    return SplitResult(SPLITS[split], {}, cohorts, pairs)


def missed(*results):
    return [(one.split, one.bar.name) for one in judge(results) if not one.passed]


def test_a_good_policy_reaches_all_of_them():
    assert len(judge([result()])) == len(BARS)
    assert not missed(result())


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"objective": Figure(0.30, 0.12, 0.33, 320)}, "learned above rules"),
        ({"rules": (0.10, 0.0, 0.12)}, "rules above no-op"),
        ({"share": 0.84}, "share of the oracle"),
        ({"decision_accuracy": Figure(0.80, 0.7, 0.9, 150)}, "decision accuracy"),
        ({"false_alarms": Figure(0.051, 0.0, 0.1, 170)}, "false alarms"),
        ({"objective_healthy": Figure(-0.01, -0.02, -0.001, 170)}, "no measurable harm"),
        ({"objective_healthy": Figure(-0.001, -0.006, 0.004, 170)}, "no measurable harm"),
        ({"ece": Figure(0.06, 0.01, 0.09, 5000)}, "ECE, 15"),
        ({"ece_width": Figure(0.06, 0.01, 0.09, 5000)}, "ECE, 10"),
        ({"auroc": Figure(0.74, 0.7, 0.8, 5000)}, "AUROC"),
    ],
)
def test_each_is_missed_by_what_it_is_about_and_by_nothing_else(bad, name):
    [(split, found)] = missed(result(**bad))
    assert split == "validation"
    assert found.startswith(name)


def test_on_unseen_data_only_the_order_is_asked_for():
    unseen = result("test:wine", share=0.1, auroc=Figure(0.1, 0.0, 0.2, 10))
    assert not missed(unseen)
    assert len(judge([unseen])) == 2
    assert missed(result("test:wine", rules=(0.10, -0.1, 0.4)))


def test_a_noisier_measurement_does_not_make_harm_harder_to_see():
    passed = []
    for half in (0.002, 0.02):
        healthy = Figure(-0.001, -0.001 - half, -0.001 + half, 170)
        passed.append(not missed(result(objective_healthy=healthy)))
    assert passed == [True, False]


def test_bars_that_hold_for_none_of_the_splits_are_named():
    wine, train = result("test:wine"), result("train")
    names = [bar.name for bar in not_judged([wine, train])]
    assert len(names) == len(BARS) - 2
    assert "decision accuracy" in names
    assert not not_judged([wine, result()])


@pytest.mark.parametrize("comparison", [">", ">=", "<="])
def test_what_is_unknown_fails(comparison):
    bar = Bar("unknown", ("learned.auroc", "value"), comparison, 0.5)
    unknown = Judgement("validation", bar, math.nan)
    assert not unknown.passed
    assert "unknown" in str(unknown)
    assert unknown.as_json()["value"] is None


def test_a_cohort_that_did_not_play_is_unknown():
    played = result()
    alone = SplitResult(played.split, {}, {"no-op": played.cohorts["no-op"]}, {})
    judgements = judge([alone])
    assert all(math.isnan(judgement.value) for judgement in judgements)
    assert not any(judgement.passed for judgement in judgements)


@pytest.mark.parametrize(
    ("comparison", "value", "margin"), [(">", 0.4, -0.1), (">=", 0.7, 0.2), ("<=", 0.7, -0.2)]
)
def test_the_margin_is_counted_towards_the_good_side(comparison, value, margin):
    judgement = Judgement("x", Bar("b", ("a.b", "value"), comparison, 0.5), value)
    assert judgement.margin == pytest.approx(margin)
    assert judgement.passed == (margin > 0)
    assert f"{abs(margin):.3f}" in str(judgement)
