"""Settings of the learner."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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
    lr_scheduler_factor: Fraction = 0.5
    lr_scheduler_patience: Count = 10
