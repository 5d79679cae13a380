"""Decisions per second of `tamiyo/Training-v0`, twins included, beside the matrix products alone.

    OMP_NUM_THREADS=1 pytest benches/test_training_env.py --import-mode=importlib -s

Batch 32, depth 2-12, widths to 64, ten optimiser steps between two decisions. Whole episodes of
cohorts of every width and optimiser, equally many of each, from one reset to a later one, in one
process and in two. The bar of the design is 500 decisions per second on two cores. What limits it
shows in the last column: the time that the products of the same shapes take by themselves, as a
share of the whole (1 would be the floor).
"""

import time

import numpy as np
import pytest
import torch

from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.hosts import BATCH
from tamiyo.envs.training.sampling import TrainingConfig, draw_cohort
from tamiyo.envs.training.vector_env import TrainingVectorEnv

RUNS, EPISODES = 192, 2
SEED = 6659  # draws each width and optimiser equally often in both episodes


def wait(env, _observation, _random):
    return np.zeros((env.num_envs, 3), np.int64)


def oracle(env, _observation, _random):
    return env.oracle_actions()


def at_random(env, observation, random):
    """A legal action of every run, half of the time."""
    actions = wait(env, observation, random)
    legal = np.concatenate(
        [observation["action_mask"], observation["model_action_mask"][:, None]], axis=1
    )
    for run in np.flatnonzero(random.random(env.num_envs) < 0.5):
        choices = np.argwhere(legal[run])
        if len(choices):
            actions[run] = 1, *random.choice(choices)
    return actions


def play(env, policy):
    """Wall and own CPU seconds of whole episodes; the last step begins another one."""
    random = np.random.default_rng(0)
    observation, _ = env.reset(seed=SEED)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(EPISODES * env.config.decisions):
        observation, *_ = env.step(policy(env, observation, random))
    return time.perf_counter() - wall, time.process_time() - cpu


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("policy", [wait, oracle, at_random], ids=["no-op", "oracle", "random"])
def test_decisions_per_second(policy, workers, capsys):
    env = TrainingVectorEnv(RUNS, workers=workers)
    wall, cpu = play(env, policy)
    env.close()
    decisions = RUNS * EPISODES * env.config.decisions
    # What other processes take of the core does not count for a worker that is this process.
    own = f", {decisions / cpu:5.0f} per second of its core" if workers == 1 else ""
    with capsys.disabled():
        print(
            f"\n{policy.__name__:10s} {workers} workers: {decisions / wall:5.0f} decisions/s{own}"
        )


@pytest.mark.parametrize("width", [16, 32, 64])
def test_share_of_the_floor(width, capsys):
    config = TrainingConfig(widths=(width,))
    random, steps = np.random.default_rng(0), 60
    for _ in range(2):
        scenarios = draw_cohort(random, config, 32).scenarios
        cohort = Cohort([one.spec for one in scenarios], steps=2 * steps, width=width)
        whole = seconds(cohort.train, steps)
        floor = seconds(lambda cohort=cohort: products(cohort), steps)
        hosts = cohort.hosts * steps
        with capsys.disabled():
            print(
                f"\nwidth {width} {scenarios[0].spec.optimizer}: "
                f"{hosts / whole:6.0f} host steps/s, share of the floor {floor / whole:.2f}"
            )


def products(cohort):
    """The matrix products of one training step, on the cohort's own weights."""
    layout, width = cohort.layout, cohort.width
    for level in layout.all_levels:
        weight = cohort.weights.level(layout, level)
        x = weight.new_zeros(len(weight), BATCH, weight.shape[1])
        out = torch.bmm(x, weight)
        torch.bmm(x.mT, out)
        if level:
            torch.bmm(out, weight.mT)
    assert width == cohort.weights.bias.shape[1]


def seconds(call, repeats):
    call()
    started = time.thread_time()
    for _ in range(repeats - 1):
        call()
    return time.thread_time() - started
