"""All runs are made once, in any number of processes, and an interrupted experiment goes on."""

import sys

import pytest

from tamiyo.bench.faults import (
    POLICIES,
    Cell,
    Companion,
    Plan,
    Policy,
    experiment,
    load_plugin,
    read_rows,
)
from tamiyo.bench.faults import experiment as function
from tamiyo.bench.faults.experiment import PolicyChangedError
from tamiyo.bench.faults.validity import TWINS

PLUGIN = """
from torch import nn
from tamiyo.bench.faults import ARCHITECTURES, Architecture

ARCHITECTURES.add(Architecture(
    "{name}",
    lambda network: nn.Sequential(
        nn.Linear(*network.shape, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
        nn.Linear(8, network.classes)),
    lambda source: source.name == "circles", (8, 8), steps=20,
))
"""


@pytest.fixture
def plan(cell):
    return Plan([cell("F1:rate × 10")], 2, [cell()], 3)


@pytest.fixture
def made(monkeypatch):
    """The runs that are really made."""
    module = sys.modules[function.__module__]
    seen, play = [], module.play

    def watched(*job):
        seen.append(job)
        return play(*job)

    monkeypatch.setattr(module, "play", watched)
    return seen


def test_every_run_is_in_the_plan_once(plan, cell):
    jobs = plan.jobs(["no-op", "rules"])
    assert len(jobs) == len(set(jobs))
    twins = [job for job in jobs if job.policy == "no-op" and job.cell == cell()]
    assert [job.seed for job in twins] == list(range(TWINS))
    assert {job.seed for job in jobs if job.policy == "rules" and job.cell == cell()} == {0, 1, 2}
    assert {job.seed for job in jobs if job.cell.fault != "F0"} == {0, 1}
    assert jobs == plan.jobs(["rules"])


def test_nobody_comes_first(plan):
    policies = [job.policy for job in plan.jobs(["rules", "oracle"])]
    assert policies == sorted(policies, key="no-op".__ne__)


def test_plans_are_narrowed_and_widened(plan, cell):
    assert plan.narrowed("rate", None, None).cells == [cell("F1:rate × 10")]
    assert plan.narrowed("rate", None, None).healthy_cells == [cell()]
    assert plan.narrowed("F0", None, None) == Plan([], 2, [cell()], 3)
    assert plan.narrowed("nothing", 5, 0) == Plan([], 5, [], 0)
    more = plan.with_cells([cell("F5:bias -1"), cell("F1:rate × 10")])
    assert more.cells == (cell("F1:rate × 10"), cell("F5:bias -1"))
    assert more.healthy_cells == (cell(),)


def test_an_interrupted_experiment_goes_on_where_it_was(plan, tmp_path, made):
    path, seen = tmp_path / "new" / "rows.jsonl", []
    whole = experiment(plan, ["rules"], path, on_row=seen.append)
    runs = made.copy()
    assert len(whole) == len(seen) == len(runs) == len(plan.jobs(["rules"]))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:9]) + lines[9][:30])
    made.clear()
    assert experiment(plan, ["rules"], path) == whole
    assert made == runs[9:]
    assert len(read_rows(path)) == len(lines)
    made.clear()
    experiment(plan, ["plateau"], path)
    assert {policy for _, policy, _ in made} == {"plateau"}


def test_a_row_of_something_else_is_none_of_these(plan, cell, tmp_path, made):
    path = tmp_path / "rows.jsonl"
    alone = Plan([], 0, [cell()], 1)
    experiment(alone, ["no-op"], path)
    path.write_text(path.read_text().replace('"learning_rate": 0.01', '"learning_rate": 0.5'))
    made.clear()
    experiment(alone, ["no-op"], path)
    assert len(made) == TWINS


def test_an_unknown_policy_is_refused_before_anything_runs(plan, tmp_path, made):
    with pytest.raises(ValueError, match="unknown policy"):
        experiment(plan, ["magic"], tmp_path / "rows.jsonl")
    assert not made


def test_a_policy_that_is_replaced_meanwhile_ends_the_measurement(plan, tmp_path):
    versions = iter(["1", *"22222"])
    policy = Policy("moving", lambda: make(next(versions)))

    def make(version):
        companion = Companion()
        companion.version = version
        return companion

    POLICIES.add(policy)
    with pytest.raises(PolicyChangedError, match="'1' and is '2' now"):
        experiment(plan, ["moving"], tmp_path / "rows.jsonl")
    # What was made is kept, and belongs to the version that made it.
    assert [row.version for row in read_rows(tmp_path / "rows.jsonl")][-1] == "2"


@pytest.mark.slow
def test_the_number_of_processes_makes_no_difference(registers, tmp_path):
    plugin = tmp_path / "in_processes.py"
    plugin.write_text(PLUGIN.format(name="tiny"))
    load_plugin(plugin)
    healthy = Cell("F0", "tiny", "circles")
    plan = Plan([Cell("F4:std × 20", "tiny", "circles")], 2, [healthy], 2)
    alone = experiment(plan, ["rules"], tmp_path / "one.jsonl")
    together = experiment(plan, ["rules"], tmp_path / "two.jsonl", workers=2, plugins=[plugin])
    assert together == alone
