"""PPO over graphs: collect, estimate advantages, several epochs of clipped updates, repeat.

Decoupled PPO with two streams. The fresh one is plain PPO with GAE (Schulman et al. 2017,
arXiv:1707.06347): the proximal policy is the one that collected it. The replayed one is in
`tamiyo.learn.replay_stream`. Dropout never touches a log-probability.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tamiyo.learn.checkpoints import (
    TrainingState,
    joined,
    load_moments,
    moments_of,
    parted,
)
from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.fresh_stream import FreshStream
from tamiyo.learn.losses import Losses, Minibatch, losses
from tamiyo.learn.replay import PrioritizedReplay
from tamiyo.learn.replay_stream import ReplayStream
from tamiyo.learn.rollout import Rollout, collect
from tamiyo.learn.seeds import derive
from tamiyo.policy import EnhancedTamiyoPolicyGNN
from tamiyo.policy.actions import ActionDistribution

__all__ = ["PolicyLearner"]


@dataclass(slots=True)
class Progress:
    """How far the training is."""

    iteration: int = 0
    """Also the version of the policy that collects."""
    optimizer_steps: int = 0
    decisions: int = 0


class PolicyLearner:
    """Trains a network in place.

    Args:
        policy: The network.
        config: The settings.
        memory: What it replays, and where what it collects goes; it needs none for η = 0.
    """

    def __init__(
        self,
        policy: EnhancedTamiyoPolicyGNN,
        config: ProductionTrainingConfig,
        memory: PrioritizedReplay | None = None,
    ) -> None:
        self.policy = policy
        self.config = config
        self.memory = memory
        self.replay: ReplayStream | None = None
        if memory is not None and config.replay_share > 0:
            self.replay = ReplayStream(memory, config)
        self.target = copy.deepcopy(policy).requires_grad_(False)
        self.anchor: EnhancedTamiyoPolicyGNN | None = None
        if config.anchor_coeff > 0:
            self.anchor = copy.deepcopy(policy).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            policy.parameters(),
            lr=config.learning_rate,
            eps=config.adam_eps,
            weight_decay=config.weight_decay,
        )
        self.scheduler = ReduceLROnPlateau(
            self.optimizer,
            mode="max",
            # A relative threshold would call an equal return better where returns are negative.
            threshold_mode="abs",
            factor=config.lr_scheduler_factor,
            patience=config.lr_scheduler_patience,
        )
        self.progress = Progress()

    @property
    def exploration(self) -> float:
        """ε now: falls linearly to 0 over the configured share of the training."""
        horizon = self.config.exploration_share * self.config.num_training_steps
        left = 1.0 - self.progress.optimizer_steps / horizon if horizon else 0.0
        return self.config.exploration * max(left, 0.0)

    @property
    def finished(self) -> bool:
        """Whether the configured number of optimiser steps is done."""
        return self.progress.optimizer_steps >= self.config.num_training_steps

    @property
    def converged(self) -> bool:
        """Whether the learning rate fell so often, without a better return, that nothing moves.

        Never while actions are still explored: what looks flat then may not be.
        """
        floor = self.config.learning_rate * self.config.convergence_rate_ratio
        rate = self.optimizer.param_groups[0]["lr"]
        return bool(self.exploration == 0.0 and rate <= floor)

    def iterate(self, env: VectorEnv[Any, Any, Any]) -> dict[str, float]:
        """Collect once and learn from it.

        Returns:
            What was measured; NaN where nothing was.
        """
        if self.config.fit_normalization and not self._normalized:
            self.fit_normalization(self._collect(env, "normalization"))
        exploration = self.exploration
        return self.learn(self._collect(env, "rollout"), exploration)

    def learn(self, rollout: Rollout, exploration: float) -> dict[str, float]:
        """One iteration on what was collected; see `update` and `iterate`."""
        measured = self.update(rollout, exploration)
        returns = torch.tensor(rollout.returns)
        mean_return = float(returns.mean()) if len(returns) else float("nan")
        if len(returns):
            self.scheduler.step(mean_return)
        self.progress.iteration += 1
        self.progress.decisions += int(rollout.experience.valid.sum())
        return measured | {
            "return": mean_return,
            "episodes": float(len(returns)),
            "exploration": exploration,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "optimizer_steps": float(self.progress.optimizer_steps),
            "decisions": float(self.progress.decisions),
        }

    def state(self) -> TrainingState:
        """Everything that the next iterations depend on, apart from the configuration."""
        groups = {
            "policy": self.policy.training_state(),
            "target": self.target.state_dict(),
            "optimizer": moments_of(self.optimizer),
            "memory": {} if self.memory is None else self.memory.state_dict(),
            "anchor": {} if self.anchor is None else self.anchor.state_dict(),
        }
        values = {
            "progress": asdict(self.progress),
            "scheduler": self.scheduler.state_dict(),
            "groups": self.optimizer.state_dict()["param_groups"],
        }
        return TrainingState(joined(**groups), values)

    def load_state(self, state: TrainingState) -> None:
        """Continue where `state` was taken."""
        parts = parted(state.tensors)
        self.policy.load_training_state(parts["policy"])
        self.target.load_state_dict(parts["target"])
        load_moments(self.optimizer, parts["optimizer"], state.values["groups"])
        self.scheduler.load_state_dict(state.values["scheduler"])
        if self.anchor is not None:
            self.anchor.load_state_dict(parts["anchor"])
        if self.memory is not None and "memory" in parts:
            self.memory.load_state_dict(parts["memory"])
        self.progress = Progress(**state.values["progress"])

    @property
    def _normalized(self) -> bool:
        """Whether the observations' mean and deviation were ever fitted, here or before."""
        return bool((self.policy.trunk.global_norm.scale != 1.0).any())

    def fit_normalization(self, rollout: Rollout) -> None:
        """Set the observations' mean and deviation; afterwards they are part of the policy."""
        experience = rollout.experience
        everything = experience.graphs(experience.valid.flatten().nonzero()[:, 0])
        for network in (self.policy, self.target):
            network.trunk.fit_normalization(everything)

    def update(self, rollout: Rollout, exploration: float = 0.0) -> dict[str, float]:
        """All epochs over one rollout.

        Args:
            rollout: Collected by the policy as it is now.
            exploration: ε of the mixture that it was collected with.

        Returns:
            Means over minibatches; `kl` and `clip_fraction` are those of the last epoch, before
            each of its steps.
        """
        fresh = FreshStream(rollout, self.config)
        epochs: list[dict[str, float]] = []
        for epoch in range(self.config.ppo_epochs):
            order = self._generator("minibatches", epoch)
            steps = [
                self._step(batch, self._replayed(fresh, len(batch), exploration), exploration)
                for batch in fresh.minibatches(self._fresh_per_minibatch, order)
            ]
            epochs.append(mean_measured(steps))
            if self.config.target_kl is not None and epochs[-1]["kl"] > self.config.target_kl:
                break
        last = {name: epochs[-1][name] for name in ("kl", "clip_fraction")}
        if self.replay is not None:
            done = self.progress.optimizer_steps / self.config.num_training_steps
            self.replay.remember(rollout, self.progress.iteration, done)
        return (
            mean_measured(epochs)
            | last
            | {"epochs": float(len(epochs)), "explained_variance": fresh.explained_variance}
        )

    def _step(
        self, fresh: Minibatch, replayed: Minibatch | None, exploration: float
    ) -> dict[str, float]:
        """One optimiser step; each stream is averaged by itself, then by its share."""
        found = self._losses(fresh, exploration)
        parts, total = dict(found.parts), found.total
        if replayed is not None:
            share = len(replayed) / (len(fresh) + len(replayed))
            again = self._losses(replayed, exploration)
            total = (1.0 - share) * total + share * again.total
            parts |= {f"replay_{name}": part for name, part in again.parts.items()}
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self._warming_up:
            self._forget_gradients_but_the_value_heads()
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.gradient_clip_norm)
        with self._warm_rate():
            self.optimizer.step()
        self.progress.optimizer_steps += 1
        if self.progress.optimizer_steps % self.config.target_update_freq == 0:
            self._update_target()
        parts["gradient_norm"] = norm
        return {name: float(part) for name, part in parts.items()}

    @property
    def _fresh_per_minibatch(self) -> int:
        return self.config.batch_size - (0 if self.replay is None else self.config.most_replayed)

    def _replayed(self, fresh: FreshStream, count: int, exploration: float) -> Minibatch | None:
        """What goes with so many fresh transitions."""
        if self.replay is None:
            return None
        return self.replay.minibatch(self.target, fresh.standard, exploration, fresh=count)

    @property
    def _warming_up(self) -> bool:
        return self.progress.iteration < self.config.value_warmup

    def _forget_gradients_but_the_value_heads(self) -> None:
        """A value that knows nothing yet must not move the trunk that everything else stands on."""
        own = set(self.policy.heads.head("value").parameters())
        for parameter in self.policy.parameters():
            if parameter not in own:
                # Without a gradient there is no weight decay either.
                parameter.grad = None

    @contextmanager
    def _warm_rate(self) -> Iterator[None]:
        group = self.optimizer.param_groups[0]
        rate = group["lr"]
        if self._warming_up:
            group["lr"] = self.config.value_warmup_rate
        yield
        group["lr"] = rate

    def _losses(self, batch: Minibatch, exploration: float) -> Losses:
        wanted = self.config.uncertainty_regularization > 0
        masks = self._generator("dropout", self.progress.optimizer_steps) if wanted else None
        batch = batch.to(self.policy.device)
        outputs = self.policy(batch.graphs, uncertainty=wanted, generator=masks)
        if self._warming_up:
            batch = replace(batch, on_policy=torch.zeros_like(batch.on_policy))
        return losses(outputs, batch, self.config, exploration, self._anchored(batch))

    @torch.no_grad()
    def _anchored(self, batch: Minibatch) -> ActionDistribution | None:
        if self.anchor is None:
            return None
        anchored: ActionDistribution = self.anchor(batch.graphs)["distribution"]
        return anchored

    @torch.no_grad()
    def _update_target(self) -> None:
        """The target network follows as an exponentially weighted mean (PPO-EWMA)."""
        rate = self.config.target_update_rate
        for slow, fast in zip(self.target.parameters(), self.policy.parameters(), strict=True):
            slow.lerp_(fast, rate)

    def _collect(self, env: VectorEnv[Any, Any, Any], purpose: str) -> Rollout:
        seed = derive(self.config.seed, purpose, self.progress.iteration) % self.config.env_seeds
        return collect(
            env, self.policy, self.config.rollout_length, seed=seed, exploration=self.exploration
        )

    def _generator(self, purpose: str, index: int) -> torch.Generator:
        seed = derive(self.config.seed, purpose, self.progress.iteration, index)
        return torch.Generator().manual_seed(seed)


def mean_measured(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean per name over the rows where it is a number; NaN where it never is."""
    names = dict.fromkeys(name for row in rows for name in row)
    means = {}
    for name in names:
        known = [row[name] for row in rows if not math.isnan(row.get(name, math.nan))]
        means[name] = math.fsum(known) / len(known) if known else math.nan
    return means
