"""References: GAE's textbook sum, stable-baselines3, and an MDP whose paths are all listed."""

import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer

from tamiyo.learn.advantages import gae, vtrace

LAMBDAS = (0.0, 0.5, 0.95, 1.0)


def random_batch(seed, steps=12, rows=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(steps, rows, generator=generator, dtype=dtype)

    def coin(share):
        return torch.rand(steps, rows, generator=generator) < share

    terminated = coin(0.1)
    done = terminated | coin(0.15)
    return {
        "rewards": draw(),
        "values": draw(),
        "next_values": draw(),
        "terminated": terminated,
        "done": done,
    }


def textbook_gae(batch, gamma, lam):
    """A_t as the sum of discounted differences up to the first end, written out."""
    steps, rows = batch["values"].shape
    advantages = torch.zeros_like(batch["values"])
    for start, row in itertools.product(range(steps), range(rows)):
        for step in range(start, steps):
            value = 0.0 if batch["terminated"][step, row] else batch["next_values"][step, row]
            difference = batch["rewards"][step, row] + gamma * value - batch["values"][step, row]
            advantages[start, row] += (gamma * lam) ** (step - start) * difference
            if batch["done"][step, row]:
                break
    return advantages


@pytest.mark.parametrize("lam", LAMBDAS)
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_equal_policies_give_gae_and_its_value_target(gamma, lam):
    batch = random_batch(0)
    expected = textbook_gae(batch, gamma, lam)
    same = torch.zeros_like(batch["values"])
    for found in (
        gae(**batch, gamma=gamma, lam=lam),
        vtrace(**batch, log_ratio=same, gamma=gamma, lam=lam),
        vtrace(**batch, log_ratio=same, gamma=gamma, lam=lam, rho_bar=math.inf, c_bar=math.inf),
    ):
        torch.testing.assert_close(found.advantages, expected, rtol=0, atol=1e-12)
        assert torch.equal(found.returns, batch["values"] + found.advantages)


@given(st.integers(0, 10_000), st.sampled_from(LAMBDAS), st.sampled_from([1.0, 0.97]))
def test_one_row_with_many_episodes_equals_the_episodes_apart(seed, lam, gamma):
    batch = random_batch(seed, steps=9, rows=1)
    ratio = torch.randn(9, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    settings = {"gamma": gamma, "lam": lam}
    whole = vtrace(**batch, log_ratio=ratio, **settings)
    ends = [*(batch["done"][:, 0].nonzero()[:, 0] + 1).tolist(), 9]
    start = 0
    for end in ends:
        here = slice(start, end)
        if start == end:
            continue
        piece = {name: column[here] for name, column in batch.items()}
        apart = vtrace(**piece, log_ratio=ratio[here], **settings)
        torch.testing.assert_close(apart.advantages, whole.advantages[here], rtol=0, atol=0)
        torch.testing.assert_close(apart.returns, whole.returns[here], rtol=0, atol=0)
        start = end


@pytest.mark.parametrize("lam", LAMBDAS)
def test_stable_baselines3_finds_the_same(lam):
    """Its buffer knows no truncation (it adds the bootstrap to the reward): only terminations."""
    steps, rows, gamma = 16, 4, 0.93
    generator = np.random.default_rng(1)
    rewards, values = generator.normal(size=(2, steps, rows)).astype(np.float32)
    ends = generator.random((steps, rows)) < 0.2
    last_values = generator.normal(size=rows).astype(np.float32)
    theirs = RolloutBuffer(
        steps,
        spaces.Box(-1, 1, (1,)),
        spaces.Discrete(2),
        gae_lambda=lam,
        gamma=gamma,
        n_envs=rows,
    )
    starts = np.concatenate([np.ones((1, rows), bool), ends[:-1]])
    for step in range(steps):
        theirs.add(
            np.zeros((rows, 1), np.float32),
            np.zeros((rows, 1), np.int64),
            rewards[step],
            starts[step],
            torch.tensor(values[step]),
            torch.zeros(rows),
        )
    theirs.compute_returns_and_advantage(torch.tensor(last_values), ends[-1])

    values_now = torch.tensor(values)
    following = torch.cat([values_now[1:], torch.tensor(last_values)[None]])
    over = torch.tensor(ends)
    ours = gae(torch.tensor(rewards), values_now, following, over, over, gamma=gamma, lam=lam)
    torch.testing.assert_close(ours.advantages, torch.tensor(theirs.advantages), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.returns, torch.tensor(theirs.returns), rtol=0, atol=1e-5)


# A process with three states and two actions: where each leads, with what probability and reward.
MOVES = torch.tensor(
    [
        [[0.1, 0.6, 0.3], [0.5, 0.0, 0.5]],
        [[0.7, 0.2, 0.1], [0.0, 0.3, 0.7]],
        [[0.3, 0.3, 0.4], [0.9, 0.1, 0.0]],
    ],
    dtype=torch.float64,
)
REWARDS = torch.tensor([[1.0, -0.5], [0.2, 2.0], [-1.0, 0.7]], dtype=torch.float64)
TARGET = torch.tensor([[0.3, 0.7], [0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
BEHAVIOUR = torch.tensor([[0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], dtype=torch.float64)
VALUES = torch.tensor([0.4, -1.3, 2.2], dtype=torch.float64)


def every_path(start, steps):
    """All (state, action) sequences from `start`, with the state that each ends in."""
    for choice in itertools.product(itertools.product(range(2), range(3)), repeat=steps):
        states, actions = [start], []
        for action, arrival in choice:
            actions.append(action)
            states.append(arrival)
        yield states, actions


def n_step_return(steps, gamma, policy):
    """V after backing up `steps` times under a policy: E[sum of rewards + γ^n V(s_n)]."""
    value = VALUES
    for _ in range(steps):
        value = (policy * (REWARDS + gamma * MOVES @ value)).sum(-1)
    return value


@pytest.mark.parametrize("start", [0, 1, 2])
@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_without_caps_the_expected_target_is_the_return_of_the_other_policy(start, gamma):
    steps, expectation, mass = 3, torch.zeros((), dtype=torch.float64), 0.0
    for states, actions in every_path(start, steps):
        taken = list(zip(states, actions, states[1:], strict=False))
        probability = math.prod(float(BEHAVIOUR[s, a] * MOVES[s, a, n]) for s, a, n in taken)
        if probability == 0:
            continue
        ratio = [math.log(TARGET[s, a] / BEHAVIOUR[s, a]) for s, a, _ in taken]
        never = torch.zeros(steps, 1, dtype=torch.bool)
        found = vtrace(
            torch.stack([REWARDS[s, a] for s, a, _ in taken])[:, None],
            VALUES[states[:-1]][:, None],
            VALUES[states[1:]][:, None],
            never,
            never,
            torch.tensor(ratio, dtype=torch.float64)[:, None],
            gamma=gamma,
            lam=1.0,
            rho_bar=math.inf,
            c_bar=math.inf,
        )
        expectation += probability * found.returns[0, 0]
        mass += probability
    assert mass == pytest.approx(1.0)
    expected = n_step_return(steps, gamma, TARGET)[start]
    torch.testing.assert_close(expectation, expected, rtol=0, atol=1e-12)
    assert abs(expectation - n_step_return(steps, gamma, BEHAVIOUR)[start]) > 0.1


def test_weights_are_capped_and_extreme_ratios_stay_finite():
    batch = random_batch(3)
    ratio = torch.full_like(batch["values"], 800.0)
    capped = vtrace(**batch, log_ratio=ratio)
    for name in ("advantages", "returns"):
        assert torch.equal(getattr(capped, name), getattr(gae(**batch), name))
    none = vtrace(**batch, log_ratio=-ratio)
    assert torch.equal(none.returns, batch["values"])


def test_a_truncation_bootstraps_and_a_termination_does_not():
    one = {
        "rewards": torch.tensor([[1.0]]),
        "values": torch.tensor([[10.0]]),
        "next_values": torch.tensor([[7.0]]),
        "done": torch.tensor([[True]]),
    }
    truncated = gae(**one, terminated=torch.tensor([[False]]))
    terminated = gae(**one, terminated=torch.tensor([[True]]))
    assert truncated.returns.item() == 8.0
    assert terminated.returns.item() == 1.0


def test_the_sum_keeps_the_precision_of_its_values():
    """Ten thousand steps of γ = 0.999: float32 in any factor would show at 1e-9."""
    steps, gamma = 10_000, 0.999
    zeros = torch.zeros(steps, 1, dtype=torch.float64)
    never = zeros.bool()
    found = gae(zeros + 0.1, zeros, zeros, never, never, gamma=gamma, lam=1.0)
    expected = 0.1 * (1 - gamma**steps) / (1 - gamma)
    assert found.returns.dtype == torch.float64
    assert found.returns[0, 0].item() == pytest.approx(expected, rel=1e-12)
    assert not found.returns.requires_grad
