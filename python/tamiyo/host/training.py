"""The objects of one training run that Tamiyo reads and may change."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["TrainingRun", "gradient_scale", "is_compiled", "unwrap"]


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A model with its optimiser and, if it has them, its scheduler and its gradient scaler."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any = None
    """A `torch.optim.lr_scheduler` object; its base classes differ, so it is duck-typed."""
    scaler: torch.amp.GradScaler | None = None

    @property
    def other_ranks(self) -> int:
        """Other processes that train the same weights; to change them here would part the ranks."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return 0
        return distributed.get_world_size() - 1

    def schedulers(self) -> Iterator[Any]:
        """The scheduler and those nested in it (`SequentialLR`, `ChainedScheduler`)."""
        waiting = [self.scheduler] if self.scheduler is not None else []
        while waiting:
            scheduler = waiting.pop()
            yield scheduler
            waiting.extend(getattr(scheduler, "_schedulers", ()))


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside `torch.compile` and data-parallel wrappers."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def is_compiled(model: nn.Module) -> bool:
    """Whether `torch.compile` wraps the model, directly or inside a data-parallel wrapper."""
    inner = model
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        inner = model.module
    return isinstance(getattr(inner, "_orig_mod", None), nn.Module)


def gradient_scale(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """What the gradients are still multiplied with inside `optimizer.step`.

    A fused optimiser unscales by itself, so that `GradScaler` hands it scaled gradients and sets
    `grad_scale`; everywhere else the gradients are already unscaled and this is `None`.
    """
    scale = getattr(optimizer, "grad_scale", None)
    return scale if isinstance(scale, torch.Tensor) else None
