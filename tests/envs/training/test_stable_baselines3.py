"""A learner from elsewhere trains on the environment, as the example shows it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.envs.training.vector_env import TrainingVectorEnv

EXAMPLE = Path(__file__).parents[3] / "examples" / "stable_baselines3_training.py"
SMALL = TrainingConfig(decisions=4, max_hidden=3, widths=(16,), held_out=64)


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("stable_baselines3")
    spec = importlib.util.spec_from_file_location("stable_baselines3_training", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_adapter_gives_what_the_environment_gives(example):
    runs = example.TrainingRuns(TrainingVectorEnv(5, config=SMALL))
    plain = TrainingVectorEnv(5, config=SMALL)
    runs.seed(3)
    first, (expected, _) = runs.reset(), plain.reset(seed=3)
    random = np.random.default_rng(0)
    for moment in range(1, SMALL.decisions + 1):
        np.testing.assert_array_equal(first["x"], expected["x"])
        actions = random.integers(plain.single_action_space.nvec, size=(5, 3))
        first, rewards, dones, infos = runs.step(actions)
        expected, told, terminated, _, columns = plain.step(actions)
        np.testing.assert_allclose(rewards, told, rtol=1e-6)
        assert dones.all() == terminated.all() == (moment == SMALL.decisions)
    for run, info in enumerate(infos):
        final = columns["final_obs"]["global_features"][run]
        np.testing.assert_array_equal(info["terminal_observation"]["global_features"], final)
        assert not info["TimeLimit.truncated"]


@pytest.mark.slow
def test_its_policy_changes_and_stays_finite(example):
    torch.manual_seed(0)
    short, longer = (example.train(steps, 16, 1, SMALL) for steps in (64, 320))
    assert longer.num_timesteps == 320
    pairs = list(zip(short.policy.parameters(), longer.policy.parameters(), strict=True))
    assert all(torch.isfinite(later).all() for _, later in pairs)
    assert any(not torch.equal(early, later) for early, later in pairs)
    assert np.isfinite([episode["r"] for episode in longer.ep_info_buffer]).all()


@pytest.mark.slow
def test_the_example_runs_as_it_is_written(example):
    command = [sys.executable, EXAMPLE, "--steps", "640", "--runs", "32"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.startswith("640 decisions; mean return")
