"""The command: what it says, and what it does not accept. Trainings themselves are tested apart."""

from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from tamiyo.bench.policy_training import PRESETS, Ablation
from tamiyo.bench.policy_training.claim import claim, identity
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


def said(result):
    return " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--device", "banana"), "the device 'banana' cannot be used"),
        (("--device", "cuda:99"), "the device 'cuda:99' cannot be used"),
        (("--without", "refinement", "--without", "imitation"), "makes no policy"),
        (("--without", "imitation", "--without", "refinement"), "makes no policy"),
        (("--finetune", "faults", "--device", "cuda"), "trainings from the beginning"),
        (("--finetune", "faults", "--without", "replay"), "trainings from the beginning"),
        (("--finetune", "faults", "--from", "nowhere"), "cannot read the checkpoint in nowhere"),
        (("--finetune", "faults", "--split", "test"), "'test' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused_and_claims_nothing(tmp_path, options, reason):
    result = run("--output", tmp_path / "new", *options)
    assert result.exit_code == 2
    assert reason in said(result)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file", "file/within"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("kept")
    result = run("--output", tmp_path / name)
    assert result.exit_code == 2
    assert "there is a file where a folder should be" in said(result)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_damaged_lesson_is_named_and_what_to_do(tmp_path):
    claim(tmp_path, identity(PRESETS["quick"], 0, torch.device("cpu")))
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "round-0001.safetensors").write_bytes(b"cut off")
    result = run("--output", tmp_path)
    assert result.exit_code == 2
    assert "round-0001.safetensors" in "".join(said(result).split())
    assert "delete it, and the training makes it again" in said(result)


def test_the_order_of_what_is_left_out_makes_no_difference(tmp_path, monkeypatch):
    asked = []

    def train(preset, _output, *, command, **_):
        asked.append((preset, command))
        raise ValueError("enough")

    monkeypatch.setattr(command, "train_policy", train)
    names = [ablation.value for ablation in Ablation]
    for order in (names, names[::-1], [*names, *names]):
        assert run(*(word for name in order for word in ("--without", name))).exit_code == 2
    assert asked[0] == asked[1] == asked[2]
    assert not asked[0][0].refinements
    assert not asked[0][0].lessons


def test_an_interrupt_says_that_the_same_command_goes_on(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train_policy", interrupted)
    result = run("--output", tmp_path)
    assert result.exit_code == 130
    assert "the same command goes on where it was" in said(result)
    assert "Traceback" not in result.output


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
