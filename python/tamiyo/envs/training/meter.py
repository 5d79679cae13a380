"""Norms of gradients, weights and updates of every row, taken while a step is done."""

import torch
from torch import Tensor

from tamiyo.envs.training.propagation import Passed

__all__ = ["StepMeter"]


class StepMeter:
    """Is shown every level's weights before and after its update, and the biases.

    Norms are those of `tamiyo.host.updates`, but of all scalars, not of a sample.

    Args:
        rows: R + H.
        device: Where the weights are.
    """

    passed: Passed
    """The forward pass, once the step is done."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._gradient, self._old, self._new, self._change = torch.zeros(
            4, rows, dtype=torch.float64, device=device
        )
        self._copy: Tensor

    def before(self, rows: slice, weight: Tensor, gradient: Tensor) -> None:
        """Take what the optimiser is about to use."""
        self._gradient[rows] += _squares(gradient)
        self._old[rows] += _squares(weight)
        self._copy = weight.clone()

    def after(self, rows: slice, weight: Tensor) -> None:
        """Take what has become of the same weights."""
        self._new[rows] += _squares(weight)
        self._change[rows] += _squares(weight - self._copy)

    def norms(self) -> Tensor:
        """[3, R + H]: of gradients, of weights, and update ratios; infinite where not finite.

        The update ratio of weights that were all zero is NaN.
        """
        gradient, old, new, change = (
            squares.sqrt().nan_to_num(torch.inf, torch.inf)
            for squares in (self._gradient, self._old, self._new, self._change)
        )
        ratio = torch.where(old > 0, change / old, torch.nan).where(old.isfinite(), torch.inf)
        return torch.stack([gradient, new, ratio])


def _squares(values: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms.double().square()
