"""Behavioural cloning: make the expert's answers likely, and the foreseeing heads right."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tamiyo.learn.checkpoints import (
    TrainingCheckpoints,
    TrainingState,
    joined,
    load_moments,
    moments_of,
    parted,
)
from tamiyo.learn.config import ProductionTrainingConfig
from tamiyo.learn.graphs import pack
from tamiyo.learn.head_losses import head_losses, value_loss, weighted_mean
from tamiyo.learn.imitation.demonstrations import Demonstrations
from tamiyo.learn.seeds import derive
from tamiyo.policy import EnhancedTamiyoPolicyGNN

__all__ = ["CloningConfig", "clone"]

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class CloningConfig(BaseModel):
    """Immutable and validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Count = 8
    batch_size: Count = 256
    learning_rate: Positive = 1e-3
    """The highest one; it rises over the first tenth and falls to nothing (one cycle)."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    gradient_clip_norm: Positive = 1.0
    seed: int = Field(default=0, ge=0)
    heads: ProductionTrainingConfig = ProductionTrainingConfig(
        uncertainty_regularization=0.0, safety_penalty_weight=1.0
    )
    """Coefficients of the other heads' losses. Unsafe outcomes are not stressed, because
    thresholds are held against calibrated probabilities, which stress would bias."""


def clone(
    policy: EnhancedTamiyoPolicyGNN,
    demonstrations: Demonstrations,
    config: CloningConfig | None = None,
    *,
    directory: str | Path | None = None,
    report: Callable[[Mapping[str, float]], None] | None = None,
) -> None:
    """Train a policy in place to answer as the expert does.

    With a directory it goes on after the last whole epoch of an interrupted call, and ends with
    the same numbers as one that was not interrupted.

    Args:
        policy: The network; its normalisation must have been fitted.
        demonstrations: What it learns from, at least one batch.
        config: The settings.
        directory: Of checkpoints.
        report: Is given each epoch's mean losses.

    Raises:
        ValueError: fewer demonstrations than make one batch.
    """
    config = config or CloningConfig()
    if len(demonstrations) < config.batch_size:
        raise ValueError(f"{len(demonstrations)} states make no batch of {config.batch_size}")
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    checkpoints = None if directory is None else TrainingCheckpoints(directory)
    epoch = _resume(checkpoints, policy, optimizer)
    while epoch < config.epochs:
        rows = _epoch(policy, optimizer, demonstrations, config, epoch)
        epoch += 1
        # Reported first: an epoch that was kept is never done, and so never reported, again.
        if report is not None:
            report({"epoch": float(epoch), **rows})
        if checkpoints is not None:
            checkpoints.write(epoch, _state(policy, optimizer, epoch))


def _epoch(
    policy: EnhancedTamiyoPolicyGNN,
    optimizer: torch.optim.Optimizer,
    demonstrations: Demonstrations,
    config: CloningConfig,
    epoch: int,
) -> dict[str, float]:
    """One pass over the demonstrations; mean losses."""
    batches = list(_batches(len(demonstrations), config, epoch))
    total = config.epochs * len(batches)
    sums: dict[str, float] = {}
    for number, index in enumerate(batches):
        done = (epoch * len(batches) + number) / total
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * one_cycle(done)
        parts = _losses(policy, demonstrations[index], config)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(policy.parameters(), config.gradient_clip_norm)
        optimizer.step()
        for name, part in parts.items():
            sums[name] = sums.get(name, 0.0) + float(part.detach()) / len(batches)
    return sums


def one_cycle(done: float) -> float:
    """Share of the highest learning rate at a share of the training: up in a tenth, cosine down."""
    if done < 0.1:
        return 0.1 + 0.9 * done / 0.1
    return 0.5 * (1.0 + math.cos(math.pi * (done - 0.1) / 0.9))


def _batches(count: int, config: CloningConfig, epoch: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(derive(config.seed, "cloning", epoch))
    order = torch.randperm(count, generator=generator)
    whole = count // config.batch_size * config.batch_size
    return iter(order[:whole].split(config.batch_size))


def _losses(
    policy: EnhancedTamiyoPolicyGNN, batch: Demonstrations, config: CloningConfig
) -> dict[str, Tensor]:
    device = policy.device
    outputs: dict[str, Any] = policy(pack(batch.observations).to(device))
    log_prob = outputs["distribution"].log_prob(batch.action.to(device))
    weights = batch.weights.to(device)
    foreseen = head_losses(outputs, batch.targets.to(device), weights, config.heads)
    value = value_loss(outputs["value_estimate"], batch.returns.to(device), weights, config.heads)
    return {
        "imitation": -weighted_mean(log_prob, weights),
        "value": config.heads.value_loss_coeff * value,
    } | {name: coefficient * loss for name, (coefficient, loss) in foreseen.items()}


def _state(
    policy: EnhancedTamiyoPolicyGNN, optimizer: torch.optim.Optimizer, epoch: int
) -> TrainingState:
    tensors = joined(policy=policy.training_state(), optimizer=moments_of(optimizer))
    return TrainingState(tensors, {"epoch": epoch})


def _resume(
    checkpoints: TrainingCheckpoints | None,
    policy: EnhancedTamiyoPolicyGNN,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Go back to the newest checkpoint; the number of epochs that were done."""
    state = None if checkpoints is None else checkpoints.newest()
    if state is None:
        return 0
    parts = parted(state.tensors)
    policy.load_training_state(parts["policy"])
    load_moments(optimizer, parts["optimizer"])
    return int(state.values["epoch"])
