"""The command that trains a policy: killed and started again, it ends with the same bytes."""

import os
import subprocess
import sys
import textwrap
import time

import pytest

PROGRAM = textwrap.dedent(
    """
    from dataclasses import replace

    from tamiyo.bench.policy_training import PRESETS, pipeline
    from tamiyo.cli import train as command
    from tamiyo.cli.main import app
    from tamiyo.learn.imitation import CloningConfig
    from tamiyo.policy import PolicyConfig

    quick = PRESETS["quick"]
    tiny = replace(
        quick,
        runs=8,
        lessons=3,
        guided=1,
        refinements=3,
        calibrations=1,
        selections=1,
        cloning=CloningConfig(epochs=3, batch_size=32),
        refinement=quick.refinement.model_copy(update={"value_warmup": 0}),
        policy=PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2),
    )
    command.PRESETS = {"quick": tiny}
    pipeline.HOSTS = 4
    app()
    """
)
"""The installed command with a preset of a few seconds."""
MOMENTS = (
    "lessons/round-0000.safetensors",
    "first-clone/iteration-00000001",
    "clone/iteration-00000002",
    "refinement/iteration-00000001",
    "refined-policy/policy.safetensors",
)
"""What appears in the middle of a stage: when it does, the next unit of work has begun."""
WEIGHTS = "policy.safetensors"
RESULTS = (
    f"policy/{WEIGHTS}",
    f"cloned-policy/{WEIGHTS}",
    f"refined-policy/{WEIGHTS}",
    "selection.json",
    "history.jsonl",
)


def start(directory):
    command = [sys.executable, "-c", PROGRAM, "train", "--seed", "3", "--output", str(directory)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def kill_at(marker, directory):
    """Start the command, and kill it as soon as a file is there."""
    process = start(directory)
    while process.poll() is None and not (directory / marker).exists():
        time.sleep(0.002)
    killed = process.poll() is None
    process.kill()
    process.wait()
    return killed


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of two trainings: one that was never killed, and one that was, in every stage."""
    whole, broken = (tmp_path_factory.mktemp(name) for name in ("whole", "broken"))
    assert start(whole).wait() == 0
    for marker in MOMENTS:
        assert kill_at(marker, broken), marker
        assert not (broken / "policy").exists()
    assert start(broken).wait() == 0
    return whole, broken


@pytest.mark.slow
def test_sigkill_in_every_stage_and_starting_again_gives_the_same_policy(trained):
    whole, broken = trained
    for name in RESULTS:
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    # Both stages left something of their own, so that there was something to compare.
    refined, cloned = ((whole / f"{stage}-policy" / WEIGHTS) for stage in ("refined", "cloned"))
    assert refined.read_bytes() != cloned.read_bytes()


@pytest.mark.slow
def test_the_manifest_of_the_killed_training_says_the_same(trained):
    whole, broken = trained
    name = "policy/policy.json"
    assert (broken / name).read_text() == (whole / name).read_text()
