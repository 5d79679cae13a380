"""Figures against the same counted run by run, from the definitions in docs/evaluation.md."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tamiyo.bench.evaluation.figures import figures, reliability
from tamiyo.bench.evaluation.resampling import Resampler
from tamiyo.bench.evaluation.rows import KINDS, NEVER, accepted

DECISIONS = 6
MEANS = (
    *("objective", "objective_faulty", "objective_healthy", "accuracy", "accuracy_faulty"),
    *("decision_accuracy", "decision_accuracy_all", "acted_accuracy", "recall"),
    *("false_alarms", "early_alarms", "delay", "actions"),
)


@pytest.fixture(scope="module")
def rows(make_rows):
    """Eighty runs of every kind in which anything happens that can."""
    random, runs = np.random.default_rng(0), 80
    fault = np.where(random.random(runs) < 0.4, 0, random.integers(len(KINDS), size=runs))
    layer = np.where(fault > 0, random.integers(-1, 3, size=runs), -1)
    struck = np.where(fault > 0, random.integers(0, 4, size=runs), NEVER)
    target = random.integers(-1, 6, size=(runs, DECISIONS))
    kind = random.integers(10, size=(runs, DECISIONS))
    for run in np.flatnonzero(random.random(runs) < 0.5):
        for pair in accepted(KINDS[fault[run]], int(layer[run])):
            target[run], kind[run] = pair
    happened = np.arange(DECISIONS) >= struck[:, None]
    proposed = random.random((runs, DECISIONS)) < 0.25
    return make_rows(
        runs,
        DECISIONS,
        seed=np.repeat(np.arange(8), 10),
        fault=fault,
        layer=layer,
        struck=struck,
        curable=(fault > 0) & (random.random(runs) < 0.8),
        objective=random.normal(size=runs),
        accuracy=random.random(runs),
        # Runs are not all looked at equally often.
        step=random.choice([10, 20, 40], size=(runs, 1)) * np.arange(1, DECISIONS + 1),
        acted=proposed & (random.random((runs, DECISIONS)) < 0.7),
        proposed=proposed,
        target=target,
        type=kind,
        due=happened & (fault > 0)[:, None],
        confidence=random.random((runs, DECISIONS)).astype(np.float32),
        uncertainty=np.round(random.random((runs, DECISIONS)), 1),
    )


@pytest.fixture(scope="module")
def found(rows):
    return figures(rows, Resampler(rows.seed), np.ones(len(rows), bool))


def by_hand(rows):
    """Lists of what each figure is the mean of, one run after another."""
    lists = {name: [] for name in MEANS}
    for run in range(len(rows)):
        faulty, curable = rows.fault[run] > 0, rows.curable[run]
        moments = [t for t in range(DECISIONS) if rows.acted[run, t]]
        first = moments[0] if moments else None
        struck = rows.struck[run]
        pairs = accepted(KINDS[rows.fault[run]], int(rows.layer[run]))
        right = (
            first is not None
            and first >= struck
            and (rows.target[run, first], rows.type[run, first]) in pairs
        )
        lists["objective"].append(rows.objective[run])
        lists["accuracy"].append(rows.accuracy[run])
        lists["actions"].append(len(moments))
        lists["objective_faulty" if faulty else "objective_healthy"].append(rows.objective[run])
        if not faulty:
            lists["false_alarms"].append(first is not None)
            continue
        lists["accuracy_faulty"].append(rows.accuracy[run])
        lists["decision_accuracy_all"].append(right)
        if struck > 0:
            lists["early_alarms"].append(first is not None and first < struck)
        if curable:
            lists["decision_accuracy"].append(right)
            answered = first is not None and first >= struck
            lists["recall"].append(answered)
            if first is not None:
                lists["acted_accuracy"].append(right)
            if answered:
                lists["delay"].append(rows.step[run, first] - rows.step[run, struck])
    return lists


def test_every_mean_is_that_of_the_runs_it_is_about(rows, found):
    lists = by_hand(rows)
    assert set(found) == {*lists, "ece", "ece_width", "ece_acted", "auroc"}
    for name, values in lists.items():
        assert found[name].value == pytest.approx(np.mean(values)), name
        assert found[name].count == len(values), name
        assert found[name].low <= found[name].value <= found[name].high


def open_decisions(rows):
    """Of every run, up to its first action."""
    for run in range(len(rows)):
        for moment in range(DECISIONS):
            yield run, moment
            if rows.acted[run, moment]:
                break


def test_the_uncertainty_is_judged_by_decisions_that_it_did_not_hold_back(rows, found):
    wrong, uncertainty = [], []
    for run, t in open_decisions(rows):
        pairs = accepted(KINDS[rows.fault[run]], int(rows.layer[run]))
        fits = (rows.target[run, t], rows.type[run, t]) in pairs
        right = rows.due[run, t] and fits if rows.proposed[run, t] else not rows.due[run, t]
        wrong.append(not right)
        uncertainty.append(rows.uncertainty[run, t])
    assert found["auroc"].value == pytest.approx(roc_auc_score(wrong, uncertainty))
    assert found["auroc"].count == len(wrong)


@pytest.mark.parametrize(("name", "bins"), [("ece_width", 10), ("ece", 15)])
def test_calibration_is_of_all_decisions_up_to_the_first_action(rows, found, name, bins):
    places = list(open_decisions(rows))
    confidence = np.array([rows.confidence[place] for place in places], float)
    due = np.array([rows.due[place] for place in places])
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    edges = shares if name == "ece_width" else np.quantile(confidence, shares)
    which = np.searchsorted(edges, confidence)
    gaps = [
        (which == k).mean() * abs(confidence[which == k].mean() - due[which == k].mean())
        for k in range(bins)
        if (which == k).any()
    ]
    assert found[name].value == pytest.approx(sum(gaps))
    assert sum(row["count"] for row in reliability(rows)["mass"]) == len(places)


def test_calibration_when_acting_is_of_first_actions_and_whether_they_were_right(rows, found):
    runs = np.flatnonzero(rows.first != NEVER)
    confidence = rows.confidence[runs, rows.first[runs]].astype(float)
    which = np.searchsorted(np.linspace(0, 1, 11)[1:-1], confidence)
    gaps = [
        (which == k).mean()
        * abs(confidence[which == k].mean() - rows.right[runs][which == k].mean())
        for k in np.unique(which)
    ]
    assert found["ece_acted"].value == pytest.approx(sum(gaps))
    assert found["ece_acted"].count == len(runs)


def test_groups_are_the_same_runs_by_themselves(rows):
    kind = rows.fault == 0
    found = figures(rows, Resampler(rows.seed), kind)
    assert found["objective"].value == pytest.approx(rows.objective[kind].mean())
    assert found["false_alarms"].count == kind.sum()
    assert np.isnan(found["decision_accuracy"].value)
    assert found["decision_accuracy"].count == 0


def test_without_confidence_nothing_is_said_about_it(make_rows):
    rows = make_rows(10)
    found = figures(rows, Resampler(rows.seed), np.ones(10, bool))
    for name in ("ece", "ece_width", "ece_acted", "auroc"):
        assert np.isnan(found[name].value)
        assert found[name].count == 0
    assert reliability(rows) == {"mass": [], "width": []}
