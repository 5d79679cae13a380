"""A training that is killed and resumed must end with the numbers of one that was not."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from tamiyo.learn.learner import PolicyLearner
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.training import train

PROGRAM = textwrap.dedent(
    """
    import sys
    import gymnasium, torch
    import tamiyo.envs
    from tamiyo.learn import ProductionPolicyTrainer, ProductionTrainingConfig
    from tamiyo.policy import EnhancedTamiyoPolicyGNN, PolicyConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = PolicyConfig(hidden_dim=16, num_gnn_layers=1, num_attention_heads=2)
    config = ProductionTrainingConfig(
        batch_size=64, rollout_length=18, num_training_steps=10_000, target_update_freq=3
    )
    policy = EnhancedTamiyoPolicyGNN(shape)
    env = gymnasium.make_vec(
        "tamiyo/Sandbox-v0", num_envs=6, vectorization_mode="vector_entry_point"
    )
    trainer = ProductionPolicyTrainer(policy, shape, config)
    trainer.train(env, directory=sys.argv[1], iterations=int(sys.argv[2]))
    """
)


@pytest.fixture
def make_learner(make_network, make_config):
    def make(**settings):
        defaults = {"replay_share": 0.25, "batch_size": 64, "rollout_length": 18}
        config = make_config(**defaults | {"target_update_freq": 3} | settings)
        return PolicyLearner(make_network(), config, PrioritizedReplay(2000))

    return make


def same(first, second):
    """Whether two trainings are in the same state, bit for bit."""
    assert json.dumps(first.values) == json.dumps(second.values)
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        other = second.tensors[name]
        if tensor.is_floating_point():
            # The same bits: NaN, where nothing is known, included.
            assert torch.equal(tensor.nan_to_num(7.7), other.nan_to_num(7.7)), name
            assert torch.equal(tensor.isnan(), other.isnan()), name
        else:
            assert torch.equal(tensor, other), name
    return True


def test_a_resumed_training_ends_the_same(make_learner, make_env, tmp_path):
    straight = make_learner()
    whole = train(straight, make_env(4), iterations=4)
    for until in (1, 3):
        train(make_learner(), make_env(4), iterations=until, directory=tmp_path)
    last = make_learner()
    parts = train(last, make_env(4), iterations=4, directory=tmp_path)
    assert same(straight.state(), last.state())
    assert [row["return"] for row in parts.history] == [row["return"] for row in whole.history]
    assert parts.reason == "iterations"
    assert parts.decisions == 4 * 18 * 4


def run(directory, iterations):
    command = [sys.executable, "-c", PROGRAM, str(directory), str(iterations)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment)


def files_of(directory):
    (newest,) = sorted(directory.glob("iteration-*[0-9]"))[-1:]
    return [(newest / name).read_bytes() for name in ("state.safetensors", "state.json")]


@pytest.mark.slow
def test_sigkill_at_any_moment_and_resuming_gives_the_same_files(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole, 12).wait() == 0
    kills = 0
    for after in (1, 3, 6):
        process = run(killed, 12)
        # Killed a different while after a checkpoint appeared, so in different phases.
        while process.poll() is None and not list(killed.glob(f"iteration-*{after:02d}")):
            time.sleep(0.002)
        time.sleep(0.013 * after)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    assert run(killed, 12).wait() == 0
    assert files_of(killed) == files_of(whole)
    assert (killed / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


def test_a_training_ends_with_its_steps(make_learner, make_env):
    learner = make_learner(num_training_steps=20, ppo_epochs=2)
    summary = train(learner, make_env(), progress=True)
    assert summary.reason == "steps"
    assert summary.optimizer_steps >= 20
    assert train(learner, make_env()).iterations == summary.iterations


def test_a_training_ends_when_it_is_told_to(make_learner, make_env, tmp_path):
    summary = train(make_learner(), make_env(), stop=lambda row: row["decisions"] > 200)
    assert summary.reason == "stopped"
    assert summary.iterations == 2


def test_a_training_ends_when_it_has_converged(make_learner, make_env):
    learner = make_learner(
        exploration=0.0, lr_scheduler_patience=1, lr_scheduler_factor=0.01, ppo_epochs=1,
        learning_rate=1e-6,
    )  # fmt: skip
    summary = train(learner, make_env(2), iterations=60)
    assert summary.reason == "converged"
    assert summary.iterations < 60
