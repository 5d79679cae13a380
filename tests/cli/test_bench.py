"""`tamiyo bench faults` as a person and as a script run it."""

import sys

import pytest
from typer.testing import CliRunner

from tamiyo.bench.faults import ARCHITECTURES, DATA_SOURCES, FAULTS, POLICIES, read_rows
from tamiyo.cli.main import app
from tamiyo.policy import EnhancedTamiyoPolicyGNN

RUN = CliRunner()
PLUGIN = """
from dataclasses import replace
from torch import nn
from sklearn.datasets import make_moons
from tamiyo.bench.faults import *

ARCHITECTURES.add(Architecture(
    "arch",
    lambda network: nn.Sequential(nn.Linear(*network.shape, 8), nn.ReLU(),
                                  nn.Linear(8, network.classes)),
    lambda source: source.name == "moons",
    widths=(8,), optimizer="sgd", learning_rate=0.1, steps=60,
))
DATA_SOURCES.add(DataSource("moons", lambda: make_moons(300, noise=0.1, random_state=0), (2,)))
FAULTS.add(Fault(
    "X1", "rate 0", lambda recipe: replace(recipe, learning_rate=0.0),
    applies=lambda architecture, source: architecture.name == "arch",
))
POLICIES.add(Policy("idle", Companion))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command, each time as if in a new process, on the one fault of a plugin."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    rows = tmp_path / "rows.jsonl"
    registries = (ARCHITECTURES, DATA_SOURCES, FAULTS, POLICIES)
    before = [dict(registry._items) for registry in registries]

    def command(*options):
        for registry, items in zip(registries, before, strict=True):
            monkeypatch.setattr(registry, "_items", dict(items))
        sys.modules.pop("tamiyo_plugin_mine", None)
        base = ["bench", "faults", "--plugin", plugin, "--only", "X1", "--rows", rows]
        few = ["--seeds", "1", "--healthy-seeds", "1"]
        return RUN.invoke(app, [*map(str, base), *few, *map(str, options)])

    command.rows = rows
    return command


def test_a_users_own_cells_are_run_and_reported(run, tmp_path):
    report = tmp_path / "report.md"
    done = run("--policy", "idle", "--report", report)
    assert done.exit_code == 0, done.output
    assert "| idle | 1 harmed of 1, 1 healthy |" in done.stdout
    assert report.read_text() == done.stdout
    assert "--only X1 --seeds 1 --healthy-seeds 1` makes this page." in done.stdout
    assert {row.policy for row in read_rows(run.rows)} == {"no-op", "idle"}


def test_a_report_may_be_html(run, tmp_path):
    report = tmp_path / "report.html"
    assert run("--policy", "idle", "--report", report).exit_code == 0
    assert report.read_text().startswith("<!doctype html>")


def test_what_the_file_holds_is_not_made_again(run):
    first = run("--policy", "idle")
    lines = run.rows.read_text()
    assert run("--policy", "idle").stdout == first.stdout
    assert run.rows.read_text() == lines


def test_a_bar_that_is_missed_is_an_error(run):
    done = run("--policy", "idle", "--check")
    assert done.exit_code == 1
    assert "missed: idle: balanced accuracy of detection: 0.5000" in done.stderr
    assert run("--policy", "idle").exit_code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--policy", "magic"), "unknown policy"),
        (("--preset", "huge"), "unknown preset"),
        (("--only", "nothing of the sort"), "no cell"),
        (("--plugin", "nowhere.py"), "is no Python file"),
        (("--workers", "0"), "workers"),
    ],
)
def test_what_makes_no_sense_is_refused(run, options, said):
    done = run(*options)
    assert done.exit_code == 2
    assert said in done.stderr


def test_another_network_can_be_beside_the_runs(run, untrained):
    done = run("--policy", "idle", "--also", f"mine={untrained}")
    assert done.exit_code == 0, done.output
    assert "| mine | 1 harmed of 1, 1 healthy |" in done.stdout
    versions = {row.policy: row.version for row in read_rows(run.rows)}
    assert EnhancedTamiyoPolicyGNN.from_pretrained(untrained).version in versions["mine"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("mine=nowhere", "cannot read the checkpoint in nowhere"),
        ("mine", "needs a name of its own"),
        ("rules={}", "there is a policy 'rules' already"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused(run, untrained, option, said):
    done = run("--also", option.format(untrained))
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert not run.rows.exists()


def test_it_says_what_there_is():
    done = RUN.invoke(app, ["bench", "faults", "--help"], env={"COLUMNS": "200"})
    for name in (*POLICIES, "smoke", "standard", "full"):
        assert name in done.stdout
