"""SGD with momentum and Adam over stacked parameters, with a learning rate for every row.

The formulas are those of `torch.optim`; tests hold them to it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tamiyo.envs.training.hosts import Optimizer
from tamiyo.envs.training.layout import Layout
from tamiyo.envs.training.weights import Weights

__all__ = ["OptimizerState", "StepSizes", "clip_adaptively"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8
SMALLEST_WEIGHT_NORM = 1e-3
"""As in `tamiyo.host.actions.clip_gradients`."""


@dataclass(frozen=True, slots=True)
class StepSizes:
    """Two numbers for each row, [R + H, 1].

    SGD takes the step `rate · m` with `m = keep · m + g`. Adam takes `m / (rate + keep · √v)`, its
    usual step with the learning rate and both bias corrections moved into the denominator.
    """

    rate: Tensor
    keep: Tensor


@dataclass(slots=True)
class OptimizerState:
    """What an optimiser remembers about the hosts of a cohort, which all use the same kind."""

    kind: Optimizer
    first: Weights
    """Momentum, or Adam's first moment."""
    second: Weights | None
    """Adam's second moment."""
    steps: Tensor
    """[H]: steps that count for Adam's bias correction."""

    @classmethod
    def blank(cls, kind: Optimizer, weights: Weights) -> "OptimizerState":
        """The state before the first step."""
        return cls(
            kind,
            weights.map(torch.zeros_like),
            weights.map(torch.zeros_like) if kind == "adam" else None,
            weights.first.new_zeros(weights.hosts),
        )

    def begin_step(self, rates: Tensor, momentum: Tensor, host_of: Tensor) -> StepSizes:
        """Count a step.

        Args:
            rates: [R + H], the learning rate of each row.
            momentum: [R + H], of SGD.
            host_of: [R + H], the host of each row.
        """
        self.steps += 1
        if self.second is None:
            return StepSizes(-rates[:, None], momentum[:, None])
        steps = self.steps[host_of].double()
        # Infinite for a learning rate of zero, which makes the step zero.
        inverse = -(1.0 - BETAS[0] ** steps) / rates
        keep = (1.0 - BETAS[1] ** steps).rsqrt() * inverse
        return StepSizes(
            *((column[:, None]).to(rates.dtype) for column in (inverse * EPSILON, keep))
        )

    def update_level(
        self, layout: Layout, level: int, weights: Weights, gradient: Tensor, sizes: StepSizes
    ) -> None:
        """Update the weights of a level in place; its gradient [n, in, out] may be spoiled."""
        rows = layout.rows_at(level)
        second = None if self.second is None else self.second.level(layout, level)
        _update(
            weights.level(layout, level),
            gradient,
            self.first.level(layout, level),
            second,
            sizes.rate[rows, None],
            sizes.keep[rows, None],
        )

    def update_biases(self, weights: Weights, gradient: Tensor, sizes: StepSizes) -> None:
        """Update all biases in place; their gradient [R + H, P] may be spoiled."""
        second = None if self.second is None else self.second.bias
        _update(weights.bias, gradient, self.first.bias, second, sizes.rate, sizes.keep)

    def copy_hosts(self, layout: Layout, source: "OptimizerState", hosts: Tensor) -> None:
        """Overwrite the state of some hosts, a mask [H]."""
        self.first.copy_hosts(layout, source.first, hosts)
        if self.second is not None and source.second is not None:
            self.second.copy_hosts(layout, source.second, hosts)
        self.steps = torch.where(hosts, source.steps, self.steps)

    def clone(self) -> "OptimizerState":
        """A copy that shares nothing."""
        second = None if self.second is None else self.second.map(torch.clone)
        return OptimizerState(self.kind, self.first.map(torch.clone), second, self.steps.clone())


def _update(
    weight: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor | None,
    rate: Tensor,
    keep: Tensor,
) -> None:
    if second is None:
        first.mul_(keep).add_(gradient)
        weight.addcmul_(first, rate)
        return
    first.lerp_(gradient, 1.0 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
    denominator = torch.sqrt(second, out=gradient)
    weight.addcdiv_(first, torch.addcmul(rate, denominator, keep, out=denominator))


def clip_adaptively(weight: Tensor, gradient: Tensor, ratios: Tensor, axis: int) -> None:
    """Shorten gradients to a share of the weights' norm, unit by unit, in place (AGC).

    Brock et al., ICML 2021, arXiv 2102.06171; as `tamiyo.host.actions.clip_gradients` does.

    Args:
        weight: [n, in, out] or biases [n, out].
        gradient: The same.
        ratios: [n], largest gradient norm over weight norm; infinite where nothing is clipped.
        axis: Along which a unit's values lie.
    """
    chosen = ratios.isfinite().nonzero()[:, 0]
    if not len(chosen):
        return
    length = torch.linalg.vector_norm(gradient[chosen], dim=axis, keepdim=True)
    own = torch.linalg.vector_norm(weight[chosen], dim=axis, keepdim=True)
    limit = own.clamp_min(SMALLEST_WEIGHT_NORM)
    limit *= ratios[chosen].view(-1, *(1,) * (weight.dim() - 1))
    gradient[chosen] *= (limit / length.clamp_min(1e-12)).clamp_max(1.0)
