"""The demo as a person runs it."""

import json
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tamiyo.bench import Comparison, TrainingRecord
from tamiyo.cli.demo import verdict
from tamiyo.cli.main import app

RUN = CliRunner()


@pytest.mark.slow
def test_it_rescues_the_run_and_writes_a_report_that_needs_nothing_else(tmp_path):
    report = tmp_path / "sub" / "report.html"
    done = RUN.invoke(app, ["demo", "--json", "--report", str(report)])
    assert done.exit_code == 0, done.output
    [summary] = json.loads(done.stdout)
    accuracy = summary["accuracy"]
    assert accuracy["healthy"] - accuracy["faults, alone"] >= 0.2
    assert summary["recovered_share"] >= 0.5
    assert summary["decisions"] >= 2
    page = report.read_text()
    assert page.count("<polyline") >= 6
    assert not re.search(r"""(src|href)=|url\(|@import""", page)


def test_help_names_the_command():
    assert "demo" in RUN.invoke(app, ["--help"]).output
    assert RUN.invoke(app, ["--version"]).output.startswith("tamiyo ")


def test_bad_arguments_exit_with_2():
    assert RUN.invoke(app, ["demo", "--steps", "3"]).exit_code == 2
    assert RUN.invoke(app, ["demo", "--seeds", "0"]).exit_code == 2


def comparison(healthy, alone, rescued):
    runs = (TrainingRecord("run", evaluations=[(50, 1.0, a)]) for a in (healthy, alone, rescued))
    return Comparison(0, *runs)


RESCUED, FAR = comparison(0.95, 0.1, 0.94), comparison(0.95, 0.1, 0.8)
WORSE, HARMLESS = comparison(0.95, 0.1, 0.3), comparison(0.95, 0.8, 0.95)


@pytest.mark.parametrize(
    ("comparisons", "code", "says"),
    [
        ([RESCUED], 0, "Recovered"),
        ([FAR], 0, "0 of 1"),
        ([WORSE], 1, "did not win back"),
        ([HARMLESS], 1, "Proved nothing"),
        ([RESCUED, HARMLESS], 1, "Proved nothing"),
        ([RESCUED] * 8 + [FAR] * 2, 0, "8 of 10"),
        ([RESCUED] * 7 + [FAR] * 3, 1, "Only 7 of 10"),
    ],
)
def test_the_exit_code_says_what_was_shown(comparisons, code, says):
    console = Console(record=True, width=100)
    assert verdict(console, comparisons) == code
    assert says in console.export_text()
