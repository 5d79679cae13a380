"""All runs are made once, in any number of processes, and an interrupted experiment goes on."""

from dataclasses import replace

import pytest

from tamiyo.bench.transfer import experiment as module
from tamiyo.bench.transfer import read_rows
from tamiyo.bench.transfer.experiment import count_runs, experiment
from tamiyo.policy.checkpoint import CheckpointError

STEPS = 40


@pytest.fixture
def cases(find_case):
    """A healthy run and a faulty one, of hosts that do not depend on the clock."""

    def repeatable(case):
        return case.watching.reading != "by default" and case.host.width <= 64

    healthy = find_case(steps=STEPS, where=repeatable)
    faulty = find_case(
        "NaN weight", steps=STEPS, where=lambda c: repeatable(c) and c.number > healthy.number
    )
    return [healthy, faulty]


@pytest.fixture
def made(monkeypatch):
    """The keys of the runs that are really made."""
    keys, play = [], module.play

    def watched(case, policy, *rows):
        keys.append((case.key, policy))
        return play(case, policy, *rows)

    monkeypatch.setattr(module, "play", watched)
    return keys


def test_every_run_has_its_twins(cases, tmp_path):
    seen = []
    path = tmp_path / "new" / "rows.jsonl"
    found = experiment(cases, ["rules", "none"], path, on_row=seen.append)
    asked = [(case.number, case.fault) for case in cases]
    assert [(row.number, row.fault) for row in found["rules"]] == asked
    assert {row.policy for row in found["none"]} == {"none"}
    # Two clean runs, one with a fault, and both watched.
    assert len(seen) == len(read_rows(path)) == count_runs(cases, ["rules", "none"]) == 5
    faulty = found["rules"][1]
    clean = next(row for row in seen if row.number == faulty.number and row.fault == "healthy")
    assert (faulty.clean, faulty.untouched) == (clean.accuracy, found["none"][1].accuracy)


def test_an_interrupted_experiment_goes_on_where_it_was(cases, tmp_path, made):
    path = tmp_path / "rows.jsonl"
    whole = experiment(cases, ["rules"], path)
    runs = made.copy()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:30])
    made.clear()
    assert experiment(cases, ["rules"], path) == whole
    assert made == runs[3:]
    assert len(read_rows(path)) == len(lines)


def test_untouched_runs_are_made_once_for_all_policies(cases, tmp_path, made):
    path = tmp_path / "rows.jsonl"
    experiment(cases, ["rules"], path)
    made.clear()
    experiment(cases, ["rules", "oracle"], path)
    assert made == [(case.key, "oracle") for case in cases]


def test_a_row_of_another_host_is_none_of_this_one(cases, tmp_path, made):
    path = tmp_path / "rows.jsonl"
    experiment(cases[:1], ["none"], path)
    [row] = read_rows(path)
    path.write_text(replace(row, host=row.host | {"depth": 99}).to_line())
    made.clear()
    experiment(cases[:1], ["none"], path)
    assert made == [(cases[0].key, "none")]
    assert read_rows(path)[-1] == row


def test_nothing_is_run_for_a_policy_that_cannot_be_used(cases, tmp_path, made):
    with pytest.raises(CheckpointError):
        experiment(cases, ["rules", str(tmp_path / "nothing")], tmp_path / "rows.jsonl")
    assert not made


@pytest.mark.slow
def test_the_number_of_processes_makes_no_difference(cases, tmp_path):
    alone = experiment(cases, ["rules", "oracle"], tmp_path / "one.jsonl")
    together = experiment(cases, ["rules", "oracle"], tmp_path / "two.jsonl", workers=2)
    assert together == alone
