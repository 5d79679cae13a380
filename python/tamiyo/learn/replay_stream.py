"""The replayed stream: old segments, judged by the target network.

V-trace against the target network as the proximal policy (IMPACT: Luo et al. 2020,
arXiv:1912.00167; PPO-EWMA: Hilton et al. 2022, arXiv:2110.00641). Nothing corrects the distribution
of the replayed *states*: hence the bound on a segment's age, the share of at most one half, and the
rules below for when a replayed action no longer trains the policy.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tamiyo.learn.advantages import Targets, vtrace
from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.experience import Experience, flat_action
from tamiyo.learn.fresh_stream import Standard
from tamiyo.learn.losses import Minibatch
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.rollout import Rollout, values_of
from tamiyo.learn.segment_batch import cut, stack
from tamiyo.learn.segments import SEGMENT_LENGTH
from tamiyo.policy import EnhancedTamiyoPolicyGNN

__all__ = ["Judged", "ReplayStream", "effective_share", "judge"]


class ReplayStream:
    """Draws minibatches from a memory of segments and puts fresh rollouts into it.

    Args:
        memory: The segments.
        config: Share, caps and staleness rules.
    """

    def __init__(self, memory: PrioritizedReplay, config: ProductionTrainingConfig) -> None:
        self.memory = memory
        self.config = config
        self.segments = config.most_replayed // SEGMENT_LENGTH

    def remember(self, rollout: Rollout, version: int, progress: float) -> None:
        """Put a rollout into the memory.

        Args:
            rollout: What was collected.
            version: Of the policy that collected it.
            progress: Share of the training that is done, for the correction's exponent β.
        """
        self.memory.anneal(min(progress, 1.0))
        for segment in cut(rollout.experience, version):
            self.memory.add_segment(segment)

    def minibatch(
        self,
        target: EnhancedTamiyoPolicyGNN,
        standard: Standard,
        exploration: float,
        *,
        fresh: int,
    ) -> Minibatch | None:
        """A prioritised draw, or `None` while the memory holds less than one.

        Args:
            target: The proximal policy π_prox, which also gives the values.
            standard: By which the fresh advantages were standardised.
            exploration: ε of the mixture that π_prox acts with.
            fresh: Fresh transitions that it goes with, whose rest may be a small minibatch: η
                bounds the share of what is replayed in every one.
        """
        share = self.config.replay_share
        segments = min(self.segments, int(fresh * share / (1.0 - share)) // SEGMENT_LENGTH)
        if not segments or len(self.memory) < self.segments:
            return None
        drawn = self.memory.sample_batch(segments)
        experience = stack(drawn.segments)
        judged = judge(target, experience, self.config, exploration)
        sizes = experience.valid.sum(0)
        magnitude = (judged.targets.advantages.abs() * experience.valid).sum(0) / sizes
        self.memory.update_priorities(drawn.indices, magnitude.numpy())
        index = experience.valid.flatten().nonzero()[:, 0]
        weights = torch.as_tensor(drawn.weights, dtype=torch.float32)
        ratio = judged.log_ratio.flatten()[index]
        return Minibatch(
            graphs=experience.graphs(index),
            action=flat_action(experience.actions, index),
            prox_log_prob=judged.log_prob.flatten()[index],
            rho=ratio.clamp(max=math.log(self.config.rho_bar)).exp(),
            advantages=standard(judged.targets.advantages).float().flatten()[index],
            returns=judged.targets.returns.float().flatten()[index],
            weights=weights.expand(experience.shape).flatten()[index],
            on_policy=self._trusted(ratio, experience.sampled.flatten()[index]),
            targets=experience.targets.flatten(0, 1)[index],
        )

    def _trusted(self, log_ratio: Tensor, sampled: Tensor) -> Tensor:
        """Which transitions may still train the policy; all keep training the value."""
        near = log_ratio.abs() <= math.log(self.config.max_replay_ratio)
        enough = effective_share(log_ratio[sampled]) >= self.config.min_effective_samples
        return sampled & near & enough


class Judged(NamedTuple):
    """Old experience in the eyes of the proximal policy; each [T, B]."""

    log_prob: Tensor
    log_ratio: Tensor
    """log π_prox/μ."""
    targets: Targets


@torch.no_grad()
def judge(
    target: EnhancedTamiyoPolicyGNN,
    experience: Experience,
    config: ProductionTrainingConfig,
    exploration: float,
) -> Judged:
    """Log-probabilities, values and V-trace targets of experience under a network."""
    index = experience.valid.flatten().nonzero()[:, 0]
    outputs = target(experience.graphs(index).to(target.device))
    action = flat_action(experience.actions, index).to(target.device)
    log_prob = torch.zeros(experience.valid.numel())
    log_prob[index] = outputs["distribution"].log_prob(action, exploration).cpu()
    values = torch.zeros(experience.valid.numel())
    values[index] = outputs["value_estimate"].cpu()
    log_prob, values = log_prob.view(experience.shape), values.view(experience.shape)
    log_ratio = log_prob - experience.log_prob
    targets = vtrace(
        experience.rewards.double(),
        values.double(),
        experience.next_values(values, values_of(target, experience.finals)).double(),
        experience.terminated,
        experience.done,
        log_ratio,
        gamma=config.gamma,
        lam=config.gae_lambda,
        rho_bar=config.rho_bar,
        c_bar=config.c_bar,
    )
    return Judged(log_prob, log_ratio, targets)


def effective_share(log_ratio: Tensor) -> float:
    """Effective sample size (Kish 1965) over the number of samples, in [0, 1]; 0 for none."""
    if not len(log_ratio):
        return 0.0
    ratio = (log_ratio - log_ratio.max()).exp()
    return float(ratio.sum().square() / ratio.square().sum() / len(ratio))
