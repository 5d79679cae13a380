"""Minibatches of what the policy itself has just collected: plain PPO with GAE."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tamiyo.learn.advantages import gae
from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.experience import flat_action
from tamiyo.learn.losses import Minibatch
from tamiyo.learn.rollout import Rollout

__all__ = ["FreshStream", "Standard"]


class Standard(NamedTuple):
    """Mean and deviation of a rollout's advantages, by which both streams are standardised."""

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, advantages: Tensor) -> "Standard":
        """That of [M] advantages; fewer than two, or equal ones, are only centred."""
        if len(advantages) < 2:
            return cls()
        deviation = float(advantages.std())
        return cls(float(advantages.mean()), deviation if deviation > 1e-8 else 1.0)

    def __call__(self, advantages: Tensor) -> Tensor:
        """The standardised advantages."""
        return (advantages - self.mean) / self.deviation


class FreshStream:
    """One rollout with its targets. The proximal policy is the one that collected it, so ρ = 1.

    Args:
        rollout: What was collected.
        config: γ, λ and whether advantages are standardised.
    """

    def __init__(self, rollout: Rollout, config: ProductionTrainingConfig) -> None:
        experience = self.experience = rollout.experience
        targets = gae(
            experience.rewards.double(),
            rollout.values.double(),
            rollout.next_values.double(),
            experience.terminated,
            experience.done,
            gamma=config.gamma,
            lam=config.gae_lambda,
        )
        sampled = experience.sampled & experience.valid
        self.standard = Standard()
        if config.normalize_advantages:
            self.standard = Standard.of(targets.advantages[sampled])
        self._advantages = self.standard(targets.advantages).float().flatten()
        self._returns = targets.returns.float().flatten()
        self.explained_variance = _explained_variance(
            rollout.values[experience.valid].double(), targets.returns[experience.valid]
        )

    def minibatches(self, size: int, generator: torch.Generator) -> Iterator[Minibatch]:
        """Every transition once, in an order drawn from `generator`; a rest makes a smaller one."""
        index = self.experience.valid.flatten().nonzero()[:, 0]
        order = index[torch.randperm(len(index), generator=generator)]
        for chosen in order.split(size):
            yield self.minibatch(chosen)

    def minibatch(self, index: Tensor) -> Minibatch:
        """The transitions at some of the flattened steps."""
        experience = self.experience
        ones = torch.ones(len(index))
        return Minibatch(
            graphs=experience.graphs(index),
            action=flat_action(experience.actions, index),
            prox_log_prob=experience.log_prob.flatten()[index],
            rho=ones,
            advantages=self._advantages[index],
            returns=self._returns[index],
            weights=ones,
            on_policy=experience.sampled.flatten()[index],
            targets=experience.targets.flatten(0, 1)[index],
        )


def _explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(v - V) / Var(v); NaN where the targets do not vary."""
    spread = float(returns.var(correction=0))
    if spread == 0.0:
        return float("nan")
    return 1.0 - float((returns - values).var(correction=0)) / spread
