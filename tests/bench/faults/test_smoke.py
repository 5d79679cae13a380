"""The smoke preset, as it is run before a change lands: live runs, the shipped policy, the oracle.

What is asked for here is what holds today and must not be lost; `tamiyo bench faults --check` asks
for more.
"""

import pytest

from tamiyo.bench.faults import experiment
from tamiyo.bench.faults.bars import summary
from tamiyo.bench.faults.cohort import Rows
from tamiyo.bench.faults.presets import PRESETS
from tamiyo.bench.faults.report import html, markdown


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("smoke") / "rows.jsonl"
    return Rows(experiment(PRESETS["smoke"](), ["learned", "oracle"], path, workers=2))


@pytest.mark.slow
def test_nobody_raises_and_every_rollback_is_verified(rows):
    for policy in ("learned", "oracle"):
        cases = (*rows.faulty(policy), *rows.healthy(policy))
        assert [case.row.problems for case in cases if case.row.problems] == []
        undone = [act for case in cases for act in case.row.acts if act.rolled_back]
        assert all(act.verified is True for act in undone)


@pytest.mark.slow
def test_the_oracle_repairs_and_leaves_healthy_runs_alone(rows):
    figures = summary(rows, "oracle")
    assert figures["repaired"].value >= 0.9
    assert figures["alarms"].value == 0.0
    assert figures["disturbed"].value == 0.0


@pytest.mark.slow
def test_the_learned_policy_rescues_runs_and_harms_none(rows):
    figures = summary(rows, "learned")
    assert figures["alarms"].value <= 0.05
    assert figures["harm"].low >= -0.005
    assert figures["disturbed"].value == 0.0
    assert figures["repaired_curable"].value >= 0.33
    assert figures["gained_share"].value >= 0.5


@pytest.mark.slow
def test_it_can_be_reported(rows):
    assert "| learned | 25 harmed of 27, 30 healthy |" in markdown(rows, "the command")
    assert "<svg" in html(rows, "the command")
