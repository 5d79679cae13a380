"""The command: what it says, and what it does not accept. Trainings themselves are tested apart."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from tamiyo.bench.policy_training import PRESETS, Ablation
from tamiyo.cli import train as command
from tamiyo.cli.main import app
from tamiyo.learn.imitation import CloningConfig
from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_an_unknown_preset_is_refused(tmp_path):
    result = run("--preset", "enormous", "--output", tmp_path)
    assert result.exit_code == 2
    assert "quick, default" in result.output
    assert not list(tmp_path.iterdir())


def test_help_has_an_example():
    result = run("--help")
    assert result.exit_code == 0
    assert "tamiyo train --preset quick" in result.output


@pytest.mark.slow
def test_a_policy_is_trained_and_can_be_loaded(tmp_path, monkeypatch):
    tiny = replace(
        PRESETS["quick"],
        runs=8,
        lessons=2,
        guided=0,
        refinements=0,
        calibrations=1,
        cloning=CloningConfig(epochs=1, batch_size=32),
        policy=PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2),
    )
    monkeypatch.setattr(command, "PRESETS", {"quick": tiny})
    result = run("--output", tmp_path, "--without", Ablation.GRAPH.value)
    assert result.exit_code == 0, result.output
    assert f"tamiyo evaluate {tmp_path / 'policy'}" in result.output
    policy = EnhancedTamiyoPolicyGNN.from_pretrained(tmp_path / "policy")
    assert policy.config.num_gnn_layers == 0
    again = run("--output", tmp_path, "--seed", "9")
    assert again.exit_code == 2
    words = again.output.replace("│", " ").split()
    assert "holds another training" in " ".join(words)
