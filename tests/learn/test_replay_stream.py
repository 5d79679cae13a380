import copy
import itertools
import math

import pytest
import torch

from tamiyo.learn.advantages import gae
from tamiyo.learn.fresh_stream import FreshStream, Standard
from tamiyo.learn.learner import PolicyLearner
from tamiyo.learn.losses import losses
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.replay_stream import ReplayStream, effective_share, judge
from tamiyo.learn.segment_batch import cut, stack


@pytest.fixture
def stream(make_config):
    return ReplayStream(PrioritizedReplay(1000), make_config(replay_share=0.5, batch_size=96))


def test_at_most_the_configured_share_is_replayed(make_config):
    for share, size, expected in ((0.5, 96, 48), (0.25, 64, 16), (0.25, 100, 16), (0.1, 64, 0)):
        config = make_config(replay_share=share, batch_size=size)
        assert config.most_replayed == expected
        assert expected <= share * size


def test_an_empty_memory_replays_nothing(stream, make_network):
    assert stream.minibatch(make_network(), Standard(), 0.0, fresh=64) is None


def test_a_small_rest_of_fresh_transitions_is_not_outweighed(stream, make_network, make_rollout):
    network = make_network()
    stream.remember(make_rollout(network, steps=24), version=0, progress=0.0)
    sizes = {}
    for fresh in (48, 33, 17, 15):
        batch = stream.minibatch(network, Standard(), 0.0, fresh=fresh)
        sizes[fresh] = 0 if batch is None else len(batch)
        assert sizes[fresh] <= fresh
    assert sizes[48] > sizes[17] > sizes[15] == 0


def test_on_its_own_policy_replay_is_gae(make_network, make_rollout, make_config):
    network = make_network()
    experience = make_rollout(network, steps=30, exploration=0.2).experience
    stacked = stack(list(cut(experience, version=0)))
    judged = judge(network, stacked, make_config(), 0.2)
    assert judged.log_ratio[stacked.valid].abs().max() < 1e-5
    stream = FreshStream(make_rollout(network, steps=30, exploration=0.2), make_config())
    fresh = gae(
        experience.rewards.double(),
        make_rollout(network, steps=30, exploration=0.2).values.double(),
        make_rollout(network, steps=30, exploration=0.2).next_values.double(),
        experience.terminated,
        experience.done,
    )
    found = judged.targets.returns[stacked.valid].sort().values
    torch.testing.assert_close(found, fresh.returns.flatten().sort().values, rtol=0, atol=1e-4)
    assert stream.standard.deviation > 0


def test_a_minibatch_says_what_the_target_network_thinks(stream, make_network, make_rollout):
    behaviour, target = make_network(0), make_network(1)
    stream.remember(make_rollout(behaviour, steps=24, exploration=0.1), version=0, progress=0.5)
    assert stream.memory.beta == pytest.approx(0.7)
    batch = stream.minibatch(target, Standard(0.5, 2.0), 0.1, fresh=64)
    with torch.no_grad():
        log_prob = target(batch.graphs)["distribution"].log_prob(batch.action, 0.1)
    torch.testing.assert_close(batch.prox_log_prob, log_prob, rtol=0, atol=1e-5)
    assert len(batch) <= stream.config.most_replayed
    assert 0 < batch.rho.min() <= batch.rho.max() <= 1
    assert 0 < batch.weights.min() <= batch.weights.max() <= 1


def test_priorities_are_the_mean_advantages_of_the_segments(stream, make_network, make_rollout):
    network = make_network()
    stream.remember(make_rollout(network, steps=24), version=0, progress=0.0)
    segments = stream.memory.sample_batch(64)
    for _ in range(40):
        stream.minibatch(network, Standard(), 0.0, fresh=64)
    drawn = stream.memory.sample_batch(200)
    alone = {}
    for index, segment in zip(drawn.indices.tolist(), drawn.segments, strict=True):
        advantages = judge(network, stack([segment]), stream.config, 0.0).targets.advantages
        alone[index] = float(advantages.abs().mean())
    priorities = {index: (error + 1e-3) ** 0.6 for index, error in alone.items()}
    assert len(priorities) > 5
    # (N P)^-β over its largest: the weights give the priorities' ratios away.
    weights = dict(zip(drawn.indices.tolist(), drawn.weights.tolist(), strict=True))
    known = sorted(priorities)
    for first, second in itertools.pairwise(known):
        found = (weights[first] / weights[second]) ** (-1 / stream.memory.beta)
        assert found == pytest.approx(priorities[first] / priorities[second], rel=1e-3)
    assert len(segments.segments) == 64


def test_what_strayed_too_far_trains_the_value_only(stream):
    near, far = math.log(3.9), math.log(4.1)
    ratio = torch.tensor([0.0, near, -near, far, -far, 0.0])
    sampled = torch.tensor([True, True, True, True, True, False])
    assert stream._trusted(ratio, sampled).tolist() == [True, True, True, False, False, False]


def test_too_small_an_effective_sample_trains_the_value_only(stream):
    one_counts = torch.tensor([1.3] + [-1.3] * 20)
    assert effective_share(one_counts) < 0.3
    assert not stream._trusted(one_counts, torch.ones(21, dtype=torch.bool)).any()


def test_effective_share_is_kishs():
    assert effective_share(torch.zeros(5)) == pytest.approx(1.0)
    assert effective_share(torch.tensor([0.0, -800.0, -900.0, -900.0])) == pytest.approx(0.25)
    assert effective_share(torch.log(torch.tensor([3.0, 1.0]))) == pytest.approx(16 / 10 / 2)
    assert effective_share(torch.empty(0)) == 0.0


def test_decisions_that_nobody_drew_feed_the_value_only(
    stream, make_network, make_rollout, make_config
):
    network = make_network()
    experience = make_rollout(network, steps=12, exploration=0.5).experience
    columns = {name: getattr(experience, name) for name in experience.__slots__}
    columns |= {
        "sampled": torch.zeros_like(experience.sampled),
        "log_prob": torch.full_like(experience.log_prob, torch.nan),
    }
    for segment in cut(type(experience)(**columns), version=0):
        stream.memory.add_segment(segment)
    batch = stream.minibatch(network, Standard(), 0.5, fresh=64)
    assert not batch.on_policy.any()
    found = losses(network(batch.graphs), batch, make_config())
    assert found.parts["policy"] == 0
    assert found.parts["value"] > 0
    assert bool(torch.isfinite(batch.returns).all())


def test_learning_with_replay_uses_both_streams(make_env, make_network, make_config):
    config = make_config(replay_share=0.5, batch_size=64, rollout_length=24)
    memory = PrioritizedReplay(2000)
    learner = PolicyLearner(make_network(), config, memory)
    first = learner.iterate(make_env())
    assert "replay_value" not in first
    assert len(memory) == 16
    second = learner.iterate(make_env())
    assert second["replay_value"] > 0
    assert 0 <= second["replay_clip_fraction"] < 1
    assert memory.policy_version == 1


def test_segments_of_old_policies_leave(make_env, make_network, make_config):
    config = make_config(replay_share=0.25, batch_size=64, rollout_length=12, ppo_epochs=1)
    memory = PrioritizedReplay(50_000)
    learner = PolicyLearner(make_network(), config, memory)
    for _ in range(12):
        learner.iterate(make_env(2))
    versions = {segment.policy_version for segment in memory.sample_batch(500).segments}
    assert versions == set(range(3, 12))


def test_a_replayed_gradient_is_averaged_by_itself_then_by_its_share(
    make_env, make_network, make_rollout, make_config
):
    """The step on both streams is the step on the mixture of their separate losses."""
    network = make_network()
    config = make_config(replay_share=0.5, batch_size=64, uncertainty_regularization=0.0)
    learner = PolicyLearner(network, config, PrioritizedReplay(2000))
    rollout = make_rollout(network, steps=24)
    learner.replay.remember(rollout, 0, 0.0)
    fresh = FreshStream(rollout, config).minibatch(torch.arange(32))
    again = learner.replay.minibatch(learner.target, Standard(), 0.0, fresh=64)
    reference = copy.deepcopy(network)
    share = len(again) / (len(again) + 32)
    separate = [losses(reference(batch.graphs), batch, config).total for batch in (fresh, again)]
    ((1 - share) * separate[0] + share * separate[1]).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), config.gradient_clip_norm)
    learner._step(fresh, again, 0.0)
    for (name, found), expected in zip(
        network.named_parameters(), reference.parameters(), strict=True
    ):
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-7, msg=name)
