"""Shares, differences and medians are of the runs that they say, and only of harmed ones."""

import math

import numpy as np
import pytest

from tamiyo.bench.faults.cohort import Rows
from tamiyo.bench.faults.figures import (
    _median,
    balanced_accuracy,
    fault_figures,
    healthy_figures,
)
from tamiyo.bench.faults.rows import Evaluation

DEAD = {"fault": "F5:bias -10", "culprits": ("hidden2",), "cures": (("reinitialize", False),)}


@pytest.fixture
def clean(row):
    """Ten clean twins that get to .9 at step 80, the mean of their ends at .95."""
    return [row(seed=seed, accuracy=0.94 + 0.02 * (seed % 2)) for seed in range(10)]


@pytest.fixture
def runs(row, act):
    """Faulty runs by policy: `tamiyo` mends seeds 0 and 1, does the wrong thing in 2."""

    def curve(*accuracies):
        return tuple(Evaluation(40 * n, x, None) for n, x in enumerate(accuracies, 1))

    made = []
    for seed in range(4):
        # Seed 3 is not harmed at all.
        lost = 0.4 if seed < 3 else 0.94
        made.append(row(**DEAD, seed=seed, accuracy=lost, policy="no-op"))
        made.append(row(**DEAD, seed=seed, accuracy=0.95, policy="oracle", acts=(act(),)))
    acts = {0: (act(step=20),), 1: (act(step=40),), 2: (act(step=60, target=("output",)),), 3: ()}
    curves = {
        0: curve(0.5, 0.95, 0.95, 0.95),
        1: curve(0.1, 0.1, 0.1, 0.95),
        2: curve(0.4, 0.4, 0.4, 0.4),
        3: curve(0.9, 0.9, 0.94, 0.94),
    }
    made += [
        row(
            **DEAD,
            seed=seed,
            policy="tamiyo",
            acts=acts[seed],
            evaluations=curves[seed],
            accuracy=curves[seed][-1].accuracy,
            cpu_seconds=1.5,
        )
        for seed in range(4)
    ]
    return made


def test_only_harmed_runs_count(clean, runs):
    found = fault_figures(Rows([*clean, *runs]).faulty("tamiyo"))
    assert (found["valid"].value, found["valid"].count) == (3 / 4, 4)
    assert found["lost"].value == pytest.approx(0.55)
    assert found["detected"].value == 1
    assert found["culprit"].value == found["decision"].value == pytest.approx(2 / 3)
    assert found["type"].value == 1
    assert found["repaired"].value == found["repaired_curable"].value == pytest.approx(2 / 3)
    assert found["gained"].value == pytest.approx((0.55 + 0.55) / 3)
    assert found["gained_share"].value == pytest.approx(2 / 3)
    assert found["detection_steps"].value == 40
    assert found["compute"].value == 1.5


def test_repair_is_timed_against_the_clean_twins(clean, runs):
    rows = Rows([*clean, *runs])
    # Twins get there at step 160 (.94 and more), seed 0 at 80 and seed 1 at 160.
    assert rows.faulty("tamiyo")[0].goal == pytest.approx(0.93)
    assert [case.repair_steps for case in rows.faulty("tamiyo")] == [0, 0, math.inf, 0]
    later = [
        row if row.policy != "tamiyo" else row.__class__(**{**_fields(row), "onset": 100})
        for row in runs
    ]
    early = [
        twin.__class__(**{**_fields(twin), "evaluations": (Evaluation(40, 0.95, None),)})
        for twin in clean
    ]
    steps = [case.repair_steps for case in Rows([*early, *later]).faulty("tamiyo")]
    assert steps == [0, 60, math.inf, 20]


def _fields(row):
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def test_a_run_without_its_twins_is_not_counted(clean, runs):
    assert Rows(runs).faulty("tamiyo") == []
    assert Rows([*clean[:9], *runs]).faulty("tamiyo") == []
    assert len(Rows([*clean, *runs]).faulty("tamiyo")) == 4


def test_without_an_oracle_nothing_is_known_to_be_curable(clean, runs):
    rows = Rows([*clean, *(row for row in runs if row.policy != "oracle")])
    found = fault_figures(rows.faulty("tamiyo"))
    assert math.isnan(found["repaired_curable"].value)
    assert math.isnan(found["gained_share"].value)
    assert found["repaired"].value == pytest.approx(2 / 3)


def test_healthy_runs(clean, row, act):
    watched = [
        row(seed=0, policy="tamiyo", checksum="b", accuracy=0.94),
        row(seed=1, policy="tamiyo", accuracy=0.96),
        row(seed=2, policy="tamiyo", acts=(act(outcome="refused"),), accuracy=0.94),
        row(seed=3, policy="tamiyo", acts=(act(),), accuracy=0.86, checksum="c", problems=("x",)),
        row(seed=99, policy="tamiyo"),  # nothing to compare it with
    ]
    found = healthy_figures(Rows([*clean, *watched]).healthy("tamiyo"))
    assert (found["alarms"].value, found["alarms"].count) == (0.5, 4)
    assert found["harm"].value == pytest.approx(-0.1 / 4)
    assert found["harm"].low < -0.1 / 4
    assert found["troubled"].value == 0.25
    # Of the three in which nothing was done.
    assert (found["disturbed"].value, found["disturbed"].count) == (1 / 3, 3)


def test_balance_weighs_both_groups_alike(clean, runs, row, act):
    healthy = [row(seed=seed, policy="tamiyo") for seed in range(8)]
    healthy += [row(seed=seed, policy="tamiyo", acts=(act(),)) for seed in (8, 9)]
    rows = Rows([*clean, *runs, *healthy])
    found = balanced_accuracy(rows.faulty("tamiyo"), rows.healthy("tamiyo"))
    assert found.value == pytest.approx((1 + 0.8) / 2)
    assert found.low < found.value <= found.high
    assert found.high <= 1
    assert math.isnan(balanced_accuracy(rows.faulty("tamiyo"), []).value)
    assert math.isnan(balanced_accuracy([], rows.healthy("tamiyo")).value)


def test_rollbacks_are_counted_and_their_proofs(clean, runs, act):
    undone = [
        row
        if row.policy != "tamiyo"
        else row.__class__(
            **{**_fields(row), "acts": (act(outcome="rolled_back", verified=row.seed != 0),)}
        )
        for row in runs
    ]
    found = fault_figures(Rows([*clean, *undone]).faulty("tamiyo"))
    assert found["rolled_back"].value == 1
    assert (found["verified"].value, found["verified"].count) == (pytest.approx(2 / 3), 3)


@pytest.mark.parametrize("seed", range(3))
def test_the_medians_interval_holds_the_share_that_it_says(seed):
    random = np.random.default_rng(seed)
    held = 0
    for _ in range(300):
        figure = _median(random.exponential(size=15).tolist())
        assert figure.low <= figure.value <= figure.high
        held += figure.low <= math.log(2) <= figure.high
    # Four standard errors below .95; it is conservative.
    assert held / 300 >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 300)


def test_nothing_is_known_of_nothing():
    assert all(math.isnan(figure.value) for figure in fault_figures([]).values())
    assert all(math.isnan(figure.value) for figure in healthy_figures([]).values())
