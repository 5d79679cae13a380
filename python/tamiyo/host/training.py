"""The objects of one training run that Tamiyo reads and may change."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from tamiyo.host.companions import Companion

__all__ = ["TrainingRun", "gradient_scale", "unwrap", "wrappers"]


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A model with its optimiser and, if it has them, its scheduler and its gradient scaler."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any = None
    """A `torch.optim.lr_scheduler` object; its base classes differ, so it is duck-typed."""
    scaler: torch.amp.GradScaler | None = None
    companions: "Sequence[Companion]" = ()
    """Copies of the model that change their shape with it."""

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


def wrappers(model: nn.Module) -> Iterator[nn.Module]:
    """The model, and what is inside `torch.compile` and data-parallel wrappers, outermost first."""
    inside: Any = model
    while isinstance(inside, nn.Module):
        yield inside
        parallel = isinstance(inside, nn.parallel.DistributedDataParallel | nn.DataParallel)
        inside = inside.module if parallel else getattr(inside, "_orig_mod", None)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside `torch.compile` and data-parallel wrappers."""
    *_, inner = wrappers(model)
    return inner


def gradient_scale(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """What the gradients are still multiplied with inside `optimizer.step`.

    A fused optimiser unscales by itself, so that `GradScaler` hands it scaled gradients and sets
    `grad_scale`; everywhere else the gradients are already unscaled and this is `None`.
    """
    scale = getattr(optimizer, "grad_scale", None)
    return scale if isinstance(scale, torch.Tensor) else None
