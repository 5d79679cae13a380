"""`tamiyo inspect` on a module that a user might have."""

import json
import sys

import pytest
from typer.testing import CliRunner

from tamiyo.cli.main import app

RUN = CliRunner()
MODULE = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

def traced():
    return model(), torch.randn(3, 4)

def keywords():
    return model(), {"input": torch.randn(3, 4)}

def trained():
    return model(), (torch.randn(16, 4),), lambda output: output.square().mean()

def number():
    return 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    (tmp_path / "users_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def run(target, *options):
    return RUN.invoke(app, ["inspect", f"users_module:{target}", *options])


def test_without_inputs_it_lists_the_layers_and_says_what_is_missing():
    printed = run("model")
    assert printed.exit_code == 0
    assert "0 connections" in printed.output
    assert "not traced" in printed.output


@pytest.mark.parametrize("target", ["traced", "keywords"])
def test_with_inputs_it_shows_the_flow(target):
    shown = json.loads(run(target, "--json").output)
    assert [(edge["source"], edge["target"]) for edge in shown["edges"]] == [(0, 1), (1, 2)]
    assert "reinitialize" in shown["nodes"][0]["actions"]
    assert shown["health"] == {}


def test_with_a_loss_it_measures_health():
    shown = json.loads(run("trained", "--json").output)
    assert [*shown["health"]] == ["0", "1", "2"]
    assert all(0 <= score <= 1 for score in shown["health"].values())
    assert "health" in run("trained").output


@pytest.mark.parametrize("target", ["missing", "number"])
def test_a_target_that_cannot_be_used_exits_with_2(target):
    assert run(target).exit_code == 2


@pytest.mark.parametrize("target", ["nowhere:model", "users_module", "users_module:"])
def test_a_target_that_does_not_exist_exits_with_2(target):
    assert RUN.invoke(app, ["inspect", target]).exit_code == 2


def test_with_inputs_it_shows_which_layers_use_all_their_units():
    use = json.loads(run("trained", "--json").output)["use"]
    assert use.keys() == {"0", "2"}
    assert all(0 < share <= 1 for share in use.values())
    assert "use" in run("trained").output
    assert json.loads(run("traced", "--json").output)["use"]["0"] is None
    assert json.loads(run("model", "--json").output)["use"] == {}
