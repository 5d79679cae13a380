"""Reference: plain PPO with GAE, written out below as a textbook has it."""

import copy
import math

import pytest
import torch
from torch import nn

from tamiyo.learn.checkpoints import TrainingCheckpoints
from tamiyo.learn.fresh_stream import FreshStream
from tamiyo.learn.graphs import pack
from tamiyo.learn.learner import PolicyLearner, mean_measured
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.rollout import collect
from tamiyo.learn.seeds import derive
from tamiyo.policy.actions import Action

WITHOUT_OTHER_HEADS = {
    "safety_loss_weight": 0.0,
    "temporal_loss_coeff": 0.0,
    "urgency_loss_coeff": 0.0,
    "uncertainty_regularization": 0.0,
}


def plain_ppo(network, env, config, iterations):
    """Schulman et al. 2017 with GAE, in one function and nothing but PyTorch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, eps=1e-5,
                                  weight_decay=config.weight_decay)  # fmt: skip
    for iteration in range(iterations):
        seed = derive(config.seed, "rollout", iteration)
        rollout = collect(env, network, config.rollout_length, seed=seed)
        seen = rollout.experience
        steps, rows = seen.shape
        advantages = torch.zeros(steps, rows, dtype=torch.float64)
        last = torch.zeros(rows, dtype=torch.float64)
        for t in reversed(range(steps)):
            nonterminal = 1.0 - seen.terminated[t].double()
            unbroken = 1.0 - seen.done[t].double()
            following = rollout.next_values[t].double()
            delta = seen.rewards[t].double() + config.gamma * following * nonterminal
            delta = delta - rollout.values[t].double()
            last = delta + config.gamma * config.gae_lambda * unbroken * last
            advantages[t] = last
        returns = (advantages + rollout.values.double()).float().flatten()
        advantages = ((advantages - float(advantages.mean())) / float(advantages.std())).float()
        advantages, old = advantages.flatten(), seen.log_prob.flatten()
        flat = {name: column.flatten(0, 1) for name, column in seen.observations.items()}
        for epoch in range(config.ppo_epochs):
            generator = torch.Generator()
            generator.manual_seed(derive(config.seed, "minibatches", iteration, epoch))
            for index in torch.randperm(steps * rows, generator=generator).split(config.batch_size):
                outputs = network(pack({name: column[index] for name, column in flat.items()}))
                action = Action(
                    seen.actions.adapt.flatten()[index],
                    seen.actions.target.flatten()[index],
                    seen.actions.type.flatten()[index],
                )
                distribution = outputs["distribution"]
                ratio = (distribution.log_prob(action) - old[index]).exp()
                low, high = 1 - config.clip_ratio, 1 + config.clip_ratio
                gain = torch.minimum(
                    ratio * advantages[index], ratio.clamp(low, high) * advantages[index]
                )
                policy = -(gain.sum() / len(index))
                error = nn.functional.huber_loss(
                    outputs["value_estimate"], returns[index], reduction="none"
                )
                entropy = sum(part.sum() / len(index) for part in distribution.entropy().values())
                loss = policy + config.value_loss_coeff * (error.sum() / len(index))
                loss = loss - config.entropy_bonus_coeff * entropy
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip_norm)
                optimizer.step()


@pytest.mark.parametrize("with_memory", [False, True])
def test_without_replay_it_is_plain_ppo_bit_for_bit(
    make_env, make_network, make_config, with_memory
):
    config = make_config(
        exploration=0.0,
        fit_normalization=False,
        target_kl=None,
        **WITHOUT_OTHER_HEADS,
        batch_size=48,
        learning_rate=1e-3,
    )
    reference, network = make_network(), make_network()
    plain_ppo(reference, make_env(), config, iterations=2)
    memory = PrioritizedReplay(1000) if with_memory else None
    learner = PolicyLearner(network, config, memory)
    for _ in range(2):
        learner.iterate(make_env())
    started = make_network().state_dict()
    for name, tensor in reference.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    assert not torch.equal(started["trunk.node_in.weight"], network.trunk.node_in.weight)


@pytest.mark.parametrize("exploration", [0.0, 0.3])
def test_the_first_ratio_is_one_batched_or_alone(
    make_network, make_rollout, make_config, exploration
):
    network = make_network()
    rollout = make_rollout(network, exploration=exploration)
    stream = FreshStream(rollout, make_config())
    order = torch.Generator().manual_seed(0)
    for batch in [
        *stream.minibatches(50, order),
        *(stream.minibatch(torch.tensor([i])) for i in range(40)),
    ]:
        with torch.no_grad():
            distribution = network(batch.graphs)["distribution"]
        ratio = (distribution.log_prob(batch.action, exploration) - batch.prox_log_prob).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-5)


def test_the_ratio_is_one_with_an_isolated_last_node(make_network, make_graphs):
    network, padded = make_network(), make_graphs([4, 2, 1, 6, 3], isolated=True)
    with torch.no_grad():
        together = network(pack(padded))["distribution"]
        action = together.sample(torch.Generator().manual_seed(0), 0.9)
        log_prob = together.log_prob(action)
        for row in range(5):
            one = slice(row, row + 1)
            alone = network(pack({name: column[one] for name, column in padded.items()}))
            single = Action(action.adapt[one], action.target[one], action.type[one])
            ratio = (alone["distribution"].log_prob(single) - log_prob[one]).exp()
            assert ratio.item() == pytest.approx(1.0, abs=1e-5)


def test_an_update_moves_the_policy_a_little_and_clips_some(make_env, make_network, make_config):
    config = make_config(
        learning_rate=1e-3,
        batch_size=128,
        rollout_length=24,
        exploration=0.3,
        target_kl=None,
        **WITHOUT_OTHER_HEADS,
    )
    learner = PolicyLearner(make_network(lively=False), config)
    # The first update starts from heads that are nearly flat, and may move less.
    found = [learner.iterate(make_env(32)) for _ in range(4)][1:]
    assert all(1e-4 < row["kl"] < 0.05 for row in found), [row["kl"] for row in found]
    assert all(0 < row["clip_fraction"] < 0.5 for row in found)
    assert all(math.isfinite(row["gradient_norm"]) for row in found)


def test_epochs_end_once_the_policy_has_moved_far_enough(make_env, make_network, make_config):
    config = make_config(learning_rate=1e-2, target_kl=1e-3, ppo_epochs=8)
    found = PolicyLearner(make_network(), config).iterate(make_env())
    assert found["kl"] > 1e-3
    assert found["epochs"] < 8


def test_optimiser_and_start_are_those_of_the_design(make_network, make_config):
    network = make_network(lively=False)
    learner = PolicyLearner(network, make_config())
    (group,) = learner.optimizer.param_groups
    assert isinstance(learner.optimizer, torch.optim.AdamW)
    assert (group["lr"], group["eps"], group["weight_decay"]) == (3e-4, 1e-5, 1e-4)
    for name in ("encoder_out", "blocks.0.out"):
        weight = network.trunk.get_submodule(name).weight
        torch.testing.assert_close(weight @ weight.T, torch.eye(16), rtol=0, atol=1e-5)
    for head in ("adapt", "target"):
        assert network.heads.head(head).last.weight.norm().item() == pytest.approx(0.01, rel=1e-4)


def test_gradients_are_clipped(make_env, make_network, make_config):
    config = make_config(gradient_clip_norm=1e-3, ppo_epochs=1)
    network = make_network()
    PolicyLearner(network, config).iterate(make_env())
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    assert torch.cat(gradients).norm() <= 1.01e-3


def test_the_learning_rate_falls_when_the_return_does_not_rise(make_env, make_network, make_config):
    config = make_config(lr_scheduler_patience=1, learning_rate=1e-6, ppo_epochs=1, exploration=0.0)
    learner = PolicyLearner(make_network(), config)
    rates = [learner.iterate(make_env(2))["learning_rate"] for _ in range(12)]
    assert rates[0] == 1e-6
    assert 1e-8 < rates[-1] < 1e-6
    assert not learner.converged
    learner.optimizer.param_groups[0]["lr"] = 1e-8
    assert learner.converged
    learner.config = config.model_copy(update={"exploration": 0.1})
    assert not learner.converged


def test_observations_are_normalised_once_and_masks_are_kept(make_env, make_network, make_config):
    network = make_network()
    learner = PolicyLearner(network, make_config())
    learner.iterate(make_env())
    scales = [getattr(network.trunk, name).scale.clone() for name in ("node_norm", "global_norm")]
    assert all(bool((scale != 1).any()) for scale in scales)
    learner.iterate(make_env())
    assert torch.equal(network.trunk.node_norm.scale, scales[0])
    assert torch.equal(learner.target.trunk.node_norm.scale, scales[0])
    assert "trunk.node_norm.scale" in network.state_dict()
    # What a trained policy brings along is part of it.
    again = PolicyLearner(network, make_config(seed=5))
    again.iterate(make_env())
    assert torch.equal(network.trunk.node_norm.scale, scales[0])
    # Never measured in the sandbox, so nothing was fitted.
    assert network.trunk.node_norm.mean[0] == 0


def test_exploration_falls_to_zero(make_network, make_config):
    config = make_config(exploration=0.2, exploration_share=0.5, num_training_steps=100)
    learner = PolicyLearner(make_network(), config)
    found = []
    for steps in (0, 25, 50, 80):
        learner.progress.optimizer_steps = steps
        found.append(learner.exploration)
    assert found == pytest.approx([0.2, 0.1, 0.0, 0.0])


def test_the_target_network_follows_at_its_own_pace(make_env, make_network, make_config):
    network = make_network()
    config = make_config(target_update_freq=10_000, learning_rate=1e-3)
    learner = PolicyLearner(network, config)
    before = copy.deepcopy(learner.target.state_dict())
    learner.iterate(make_env())
    assert torch.equal(learner.target.heads.head("adapt").last.weight,
                       before["heads.graph.adapt.last.weight"])  # fmt: skip
    learner.config = config.model_copy(update={"target_update_freq": 1, "target_update_rate": 1.0})
    learner.iterate(make_env())
    for slow, fast in zip(learner.target.parameters(), network.parameters(), strict=True):
        assert torch.equal(slow, fast)
        assert not slow.requires_grad


def test_means_leave_out_what_was_not_measured():
    nan = float("nan")
    means = mean_measured([{"a": 1.0, "b": nan}, {"a": nan, "b": nan}, {"a": 3.0, "c": 5.0}])
    assert means["a"] == 2.0
    assert math.isnan(means["b"])
    assert means["c"] == 5.0


def test_a_warm_up_teaches_the_values_own_head_and_moves_nothing_else(
    make_env, make_network, make_config
):
    network = make_network()
    config = make_config(value_warmup=2, fit_normalization=False, target_kl=None, weight_decay=0.1)
    learner, env = PolicyLearner(network, config), make_env()
    before = copy.deepcopy(network.state_dict())
    rate = learner.optimizer.param_groups[0]["lr"]
    for _ in range(2):
        measured = learner.iterate(env)
        assert measured["policy"] == 0.0
        assert measured["value"] > 0.0
    own = {name for name in before if name.startswith("heads.graph.value.")}
    moved = {
        name for name, tensor in network.state_dict().items() if (tensor != before[name]).any()
    }
    assert moved == own != set()
    assert learner.optimizer.param_groups[0]["lr"] == rate
    assert learner.iterate(env)["policy"] != 0.0
    assert (
        network.state_dict()["heads.graph.adapt.first.weight"]
        != before["heads.graph.adapt.first.weight"]
    ).any()


def test_the_anchor_stays_and_survives_a_restart(make_env, make_network, make_config, tmp_path):
    config = make_config(anchor_coeff=0.5, fit_normalization=False)
    learner, env = PolicyLearner(make_network(), config), make_env()
    start = copy.deepcopy(learner.anchor.state_dict())
    learner.iterate(env)
    resumed, checkpoints = (
        PolicyLearner(make_network(seed=7), config),
        TrainingCheckpoints(tmp_path),
    )
    checkpoints.write(1, learner.state())
    resumed.load_state(checkpoints.newest())
    for one in (learner, resumed):
        for name, tensor in one.anchor.state_dict().items():
            assert torch.equal(tensor, start[name])
    assert learner.policy.offered.any()
    assert torch.equal(resumed.policy.offered, learner.policy.offered)
    again, expected = resumed.iterate(env), learner.iterate(env)
    assert expected["anchor_kl"] > 0.0
    assert again == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
