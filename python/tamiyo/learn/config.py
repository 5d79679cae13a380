"""Settings of the learner."""

from math import ceil
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tamiyo.learn.segments import SEGMENT_LENGTH

__all__ = ["ProductionTrainingConfig"]

Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class ProductionTrainingConfig(BaseModel):
    """Immutable and validated.

    Raises:
        pydantic.ValidationError: a value out of range, or an unknown name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: Positive = 3e-4
    weight_decay: Weight = 1e-4
    adam_eps: Positive = 1e-5
    batch_size: Count = 64
    num_training_steps: Count = 100_000
    gradient_clip_norm: Positive = 0.5
    target_update_freq: Count = 100
    """Optimiser steps between updates of the target network."""
    ppo_epochs: Count = 4
    clip_ratio: Fraction = 0.2
    value_loss_coeff: Weight = 0.5
    entropy_bonus_coeff: Weight = 0.01
    gae_lambda: Share = 0.95
    safety_loss_weight: Weight = 1.0
    uncertainty_regularization: Weight = 0.1
    epistemic_threshold: Share = 0.2
    safety_penalty_weight: Weight = 2.0
    """Weight of outcomes that were unsafe, against 1 of those that were safe."""
    temporal_loss_coeff: Weight = 0.1
    urgency_loss_coeff: Weight = 0.1
    lr_scheduler_factor: Fraction = 0.5
    lr_scheduler_patience: Count = 10
    """Iterations without a better mean return before the rate is lowered."""
    convergence_rate_ratio: Fraction = 0.02
    """Share of the first learning rate; below it, and without exploration, training ends."""

    rollout_length: Count = 64
    """Decisions per environment and iteration."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    rho_bar: Positive = 1.0
    c_bar: Positive = 1.0
    value_huber_delta: Positive = 1.0
    normalize_advantages: bool = True
    target_kl: Annotated[float, Field(gt=0)] | None = 0.03
    """KL between the proximal and the learned policy above which an iteration's epochs end."""
    exploration: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """ε at the start: the share of actions drawn uniformly from what is legal."""
    exploration_share: Share = 0.5
    """Share of the training over which ε falls to 0."""
    fit_normalization: bool = True
    """Fit the observations' mean and deviation to a first rollout, then keep them."""
    replay_share: Annotated[float, Field(ge=0, le=0.5)] = 0.25
    """η, the most of a minibatch that comes from the replay memory; 0 is plain PPO with GAE."""
    target_update_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """How far the target network moves towards the learned one at each update."""
    max_replay_ratio: Annotated[float, Field(gt=1)] = 4.0
    """A replayed action trains the policy only where π_prox/μ is within this factor of 1."""
    min_effective_samples: Share = 0.3
    """And only where the effective share of samples of its minibatch is at least this."""
    anchor_coeff: Weight = 0.0
    """Weight of the KL from the policy that the training started with, which holds it there."""
    value_warmup: int = Field(default=0, ge=0)
    """Iterations at the start in which the value's own head is learned and all else left alone."""
    value_warmup_rate: Positive = 1e-3
    """Learning rate of that head then: it starts from nothing, unlike the rest."""
    env_seeds: Count = 2**31
    """Environments are reset with seeds below this."""
    seed: int = Field(default=0, ge=0)

    @property
    def most_replayed(self) -> int:
        """Most replayed transitions of a minibatch: whole segments, at most η of it."""
        return int(self.replay_share * self.batch_size) // SEGMENT_LENGTH * SEGMENT_LENGTH

    def steps_of(self, decisions: int) -> int:
        """Optimiser steps of an iteration with replay that collects so many decisions."""
        return self.ppo_epochs * ceil(decisions / (self.batch_size - self.most_replayed))
