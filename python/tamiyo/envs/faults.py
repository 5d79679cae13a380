"""Faults that real runs suffer, injected into a live run at a chosen step.

Values follow the fault list of the benchmark (dying ReLU: biases of -1 … -10; a learning rate
that jumps by 100 in mid-run).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Fault", "dead_layer", "learning_rate_raised"]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong once, after optimiser step `step`."""

    name: str
    step: int
    strike: Callable[[nn.Module, torch.optim.Optimizer], None]


def dead_layer(step: int, *, layer: int, bias: float = -10.0) -> Fault:
    """Every unit of the `layer`-th linear layer gets a bias so low that its ReLU never opens."""

    def strike(model: nn.Module, _optimizer: torch.optim.Optimizer) -> None:
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)][layer]
        with torch.no_grad():
            linear.bias.fill_(bias)

    return Fault(f"dying ReLU (biases {bias:g})", step, strike)


def learning_rate_raised(step: int, *, factor: float = 100.0) -> Fault:
    """Every parameter group's learning rate is multiplied by `factor` and stays there."""

    def strike(_model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] *= factor

    return Fault(f"learning rate × {factor:g}", step, strike)
