"""The command: what it prints, when it fails, and what it does not accept."""

import pytest
import torch

from tamiyo.bench.transfer import __main__ as command
from tamiyo.bench.transfer.__main__ import main
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig


@pytest.fixture
def eager(tmp_path):
    """Folder of a network that always wants to do something and is sure of it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2)
        network = EnhancedTamiyoPolicyGNN(config)
    with torch.no_grad():
        for name in ("adapt", "safety"):
            network.heads.head(name).last.bias.fill_(8.0)
    kinds = ["linear", "relu", "leaky_relu", "tanh", "dropout", "batch_norm"]
    network.save_pretrained(tmp_path / "eager", {"command": "test", "layer_types": kinds})
    return str(tmp_path / "eager")


def run(tmp_path, *arguments):
    rows = tmp_path / "rows.jsonl"
    return main([*map(str, arguments), "--faulty", "0", "--rows", str(rows)])


def test_rules_that_leave_young_runs_alone_pass(tmp_path, capsys):
    assert run(tmp_path, "--runs", 2, "--steps", 40, "--check") == 0
    printed = capsys.readouterr()
    assert "| rules | 2 | .00 (.00 … .66) |" in printed.out
    assert "missed" not in printed.err


def test_a_policy_that_acts_on_healthy_runs_fails(tmp_path, eager, capsys):
    arguments = ("--policy", eager, "--runs", 1, "--steps", 120)
    assert run(tmp_path, *arguments) == 0
    assert run(tmp_path, *arguments, "--check") == 1
    printed = capsys.readouterr()
    assert "something was done: 1.0000, at most 0.05" in printed.err
    assert "| gnn |" in printed.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--runs", -1),
        ("--steps", 0),
        ("--workers", 0),
        ("--check", "--runs", 0),
        ("--policy", "/nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *arguments)
    assert ended.value.code == 2
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("name", [".", "file/rows.jsonl"])
def test_rows_that_cannot_be_written_are_refused(tmp_path, capsys, name):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        main(["--rows", str(tmp_path / name)])
    assert ended.value.code == 2
    assert f"cannot write {tmp_path / name}" in capsys.readouterr().err


def test_an_interrupt_is_one_line(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "experiment", interrupt)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "--runs", 1)
    assert ended.value.code == 130
    said = capsys.readouterr().err.strip().splitlines()
    assert said == [f"Interrupted: the same command goes on from {tmp_path / 'rows.jsonl'}."]
