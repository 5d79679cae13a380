"""The demo as a person runs it."""

import json
import re

import pytest
from typer.testing import CliRunner

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
