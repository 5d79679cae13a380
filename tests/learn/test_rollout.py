import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tamiyo.envs.sandbox_env import SandboxVectorEnv
from tamiyo.learn.graphs import FIELDS, pack
from tamiyo.learn.rollout import collect, to_env_actions
from tamiyo.policy.actions import Action


class Truncated(SandboxVectorEnv):
    """A sandbox whose clock cuts episodes off instead of ending them."""

    def step(self, actions):
        observations, rewards, terminated, truncated, infos = super().step(actions)
        if terminated.any():
            self.last = infos["final_obs"]
        return observations, rewards, truncated, terminated, infos


def test_the_same_seed_gives_the_same_rollout(make_env, make_network):
    network = make_network()
    first, second, other = (
        collect(make_env(3), network, 14, seed=seed, exploration=0.5) for seed in (4, 4, 5)
    )
    assert torch.equal(first.experience.log_prob, second.experience.log_prob)
    assert torch.equal(first.experience.observations["x"], second.experience.observations["x"])
    assert not torch.equal(first.experience.log_prob, other.experience.log_prob)


def test_values_and_probabilities_are_those_of_the_policy(make_env, make_network):
    network = make_network()
    rollout = collect(make_env(3), network, 5, seed=0, exploration=0.5)
    seen = rollout.experience
    for step in range(5):
        padded = {name: seen.observations[name][step] for name in FIELDS}
        action = Action(
            seen.actions.adapt[step], seen.actions.target[step], seen.actions.type[step]
        )
        with torch.no_grad():
            outputs = network(pack(padded))
        log_prob = outputs["distribution"].log_prob(action, 0.5)
        torch.testing.assert_close(seen.log_prob[step], log_prob, rtol=0, atol=0)
        torch.testing.assert_close(rollout.values[step], outputs["value_estimate"], rtol=0, atol=0)
        assert torch.equal(rollout.next_values[step - 1], rollout.values[step]) or step == 0


def test_an_end_is_worth_nothing_and_returns_are_the_sums_of_rewards(make_env, make_network):
    rollout = collect(make_env(3), make_network(), 26, seed=0, exploration=0.9)
    seen = rollout.experience
    ends = torch.arange(26) % 12 == 11
    assert torch.equal(seen.terminated, ends[:, None].expand(26, 3))
    assert bool((rollout.next_values[ends] == 0).all())
    sums = [seen.rewards[start : start + 12].sum(0).tolist() for start in (0, 12)]
    assert rollout.returns == pytest.approx(sums[0] + sums[1], abs=1e-6)


def test_after_a_truncation_the_last_observation_counts_and_not_the_new_episodes(make_network):
    network, env = make_network(), Truncated(4)
    rollout = collect(env, network, 12 + 3, seed=0)
    last = {name: torch.as_tensor(env.last[name]) for name in FIELDS}
    with torch.no_grad():
        expected = network(pack(last))["value_estimate"]
    seen = rollout.experience
    assert not seen.terminated.any()
    assert torch.equal(seen.done.nonzero()[:, 0].unique(), torch.tensor([11, 14]))
    torch.testing.assert_close(rollout.next_values[11], expected, rtol=0, atol=1e-6)
    assert (rollout.next_values[11] - rollout.values[12]).abs().min() > 1e-6


def test_environments_run_one_by_one_give_the_same_shapes(make_network):
    """Gymnasium's own vectors of single environments serve as well."""
    env = gymnasium.make_vec(
        "tamiyo/Sandbox-v0",
        num_envs=2,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    rollout = collect(env, make_network(), 13, seed=0, exploration=0.5)
    assert rollout.experience.shape == (13, 2)
    assert len(rollout.returns) == 2
    env.close()


def test_another_moment_of_resetting_is_refused(make_network):
    env = gymnasium.make_vec("tamiyo/Sandbox-v0", num_envs=2, vectorization_mode="sync")
    with pytest.raises(ValueError, match="reset within the step"):
        collect(env, make_network(), 2, seed=0)
    env.close()


def test_the_model_as_a_whole_comes_after_the_last_layer():
    action = Action(torch.tensor([True, True]), torch.tensor([2, -1]), torch.tensor([4, 7]))
    assert np.array_equal(to_env_actions(action, 6), [[1, 2, 4], [1, 6, 7]])
