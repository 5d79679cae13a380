"""SGD with momentum and Adam over stacked parameters, with a learning rate for every row.

The formulas are those of `torch.optim`; tests hold them to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tamiyo.envs.training.gathering import Gathering, first_rows
from tamiyo.envs.training.hosts import Optimizer
from tamiyo.envs.training.layout import Layout
from tamiyo.envs.training.weights import Weights

__all__ = ["BETAS", "OptimizerState", "StepSizes", "clip_adaptively"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8
SMALLEST_WEIGHT_NORM = 1e-3
"""As in `tamiyo.host.actions.clip_gradients`."""


@dataclass(frozen=True, slots=True)
class StepSizes:
    """Two numbers for each row, [R + H].

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

    @classmethod
    def gathered(cls, gathering: Gathering, pieces: Sequence["OptimizerState"]) -> "OptimizerState":
        """Copies of the states of some hosts."""
        second = [one.second for one in pieces if one.second is not None]
        return cls(
            pieces[0].kind,
            Weights.gathered(gathering, [one.first for one in pieces]),
            Weights.gathered(gathering, second) if second else None,
            gathering.take([one.steps for one in pieces], first_rows),
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
            return StepSizes(-rates, momentum)
        steps = self.steps.double()
        first, second = 1.0 - BETAS[0] ** steps, (1.0 - BETAS[1] ** steps).rsqrt()
        # Infinite for a learning rate of zero, which makes the step zero.
        inverse = -first[host_of] / rates
        return StepSizes(inverse * EPSILON, second[host_of] * inverse)

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


def clip_adaptively(
    weight: Tensor, gradient: Tensor, chosen: Tensor, ratios: Tensor, axis: int
) -> None:
    """Shorten gradients to a share of the weights' norm, unit by unit, in place (AGC).

    Brock et al., ICML 2021, arXiv 2102.06171; as `tamiyo.host.actions.clip_gradients` does.

    Args:
        weight: [n, in, out] or biases [n, out].
        gradient: The same.
        chosen: [c], which of the n to clip.
        ratios: [c], largest gradient norm over weight norm.
        axis: Along which a unit's values lie.
    """
    own = gradient.index_select(0, chosen)
    length, size = _norm(own, axis), _norm(weight.index_select(0, chosen), axis)
    limit = size.clamp_min_(SMALLEST_WEIGHT_NORM).mul_(ratios.view(-1, *(1,) * (weight.dim() - 1)))
    own *= limit.div_(length.clamp_min_(1e-12)).clamp_max_(1.0)
    gradient.index_copy_(0, chosen, own)


def _norm(values: Tensor, axis: int) -> Tensor:
    # Across any but the last dimension, `vector_norm` takes four to nine times as long.
    return values.square().sum(dim=axis, keepdim=True).sqrt_()
