"""Forward and backward pass of all hosts of a cohort, level by level, in batched products.

The backward pass is written out: hosts share nothing, every derivative is one line, and there is
no graph to build and to walk for operations of a few microseconds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from tamiyo.envs.training.activations import KindGroup, activated, through_activation
from tamiyo.envs.training.layout import Layout
from tamiyo.envs.training.weights import Weights

__all__ = ["Passed", "Wires", "backward", "cross_entropy", "forward"]


@dataclass(frozen=True, eq=False)
class Wires:
    """Everything about the networks of a cohort but their weights."""

    layout: Layout
    kinds: Sequence[Sequence[KindGroup]]
    """For each level, which layers have which activation."""
    units: Tensor
    """[R, P], bool."""
    residual: Tensor
    """[H, 1, 1], 1 where hidden layers add their input, else 0."""
    skip: Tensor
    """[H, 1, 1], 1 where the first hidden layer's output is added to the last one's."""
    residuals: Sequence[bool]
    """For each level whether any host adds its input there."""
    skips: Sequence[bool]
    """For each level whether any host ends there with a sum."""


@dataclass(slots=True)
class Passed:
    """What a forward pass leaves for the backward one and for measuring; n hosts per level."""

    inputs: list[Tensor] = field(default_factory=list)
    """[n, B, in] of each level, and [H, B, P] of the last layers."""
    linear: list[Tensor] = field(default_factory=list)
    """[n, B, P] before the activation, where asked for."""
    active: list[Tensor] = field(default_factory=list)
    """[n, B, P] after it."""
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    """[H, B, 10]; of classes that do not exist they mean nothing."""


def forward(weights: Weights, wires: Wires, x: Tensor, *, keep_linear: bool = False) -> Passed:
    """Pass a batch of each host through it.

    Args:
        weights: The parameters.
        wires: The networks.
        x: [H, B, 64].
        keep_linear: Whether to keep what the activations are given.
    """
    layout, passed, h = wires.layout, Passed(), x
    ends: list[Tensor] = []
    for level, count in enumerate(layout.counts):
        bias = weights.bias[layout.rows_at(level), None]
        source = h[:count]
        z = torch.baddbmm(bias, source, weights.level(layout, level))
        a = activated(wires.kinds[level], z, wires.units[layout.rows_at(level)])
        passed.inputs.append(source)
        passed.active.append(a)
        if keep_linear:
            passed.linear.append(z)
        h = torch.addcmul(a, wires.residual[:count], source) if wires.residuals[level] else a
        ending = layout.ending_at(level)
        if ending.start < ending.stop:
            end = h[ending]
            if wires.skips[level]:
                end = torch.addcmul(end, wires.skip[ending], passed.active[0][ending])
            ends.append(end)
    h = torch.cat(ends[::-1])
    passed.inputs.append(h)
    bias = weights.bias[layout.hidden_rows :, None, : weights.last.shape[-1]]
    passed.logits = torch.baddbmm(bias, h, weights.last)
    return passed


def cross_entropy(logits: Tensor, labels: Tensor, impossible: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss of each host over its batch, and its gradient at the logits.

    Args:
        logits: [H, B, C].
        labels: [H, B].
        impossible: [H, 1, C], minus infinity for classes that a host does not have, else 0.

    Returns:
        [H] and [H, B, C].
    """
    # Across a last dimension as short as this, torch's softmax takes ten times as long.
    log_probability = functional.log_softmax((logits + impossible).mT.contiguous(), dim=1)
    chosen = labels[:, None]
    loss = -log_probability.gather(1, chosen)[:, 0].mean(dim=-1)
    gradient = log_probability.exp()
    gradient.scatter_add_(1, chosen, gradient.new_full(chosen.shape, -1.0))
    return loss, gradient.div_(labels.shape[1]).mT


def backward(
    weights: Weights,
    wires: Wires,
    passed: Passed,
    at_logits: Tensor,
    scratch: Tensor,
    visit: Callable[[int, Tensor], None],
) -> Tensor:
    """Walk back through the levels, the last layers first.

    Gradients of weights are handed out level by level and then forgotten, because all of them
    together do not fit into the caches.

    Args:
        weights: The parameters; `visit` may change those of the level that it is given.
        wires: The networks.
        passed: Their forward pass.
        at_logits: [H, B, C], gradient of each host's loss.
        scratch: Room for the largest level's gradient.
        visit: Called with each level and the gradient [n, in, out] of its weights.

    Returns:
        [R + H, P], the gradients of all biases.
    """
    layout, biases = wires.layout, torch.zeros_like(weights.bias)
    biases[layout.hidden_rows :, : at_logits.shape[-1]] = at_logits.sum(dim=1)
    at_end = torch.bmm(at_logits, weights.last.mT)
    visit(layout.levels, _outer(passed.inputs[-1], at_logits, scratch))
    above: Tensor | None = None
    for level in reversed(range(layout.levels)):
        at_output = at_end[layout.ending_at(level)]
        if above is not None:
            at_output = torch.cat([above, at_output]) if len(at_output) else above
        if level == 0 and any(wires.skips):
            at_output = torch.addcmul(at_output, wires.skip, at_end)
        at_linear = through_activation(wires.kinds[level], at_output, passed.active[level])
        torch.sum(at_linear, dim=1, out=biases[layout.rows_at(level)])
        if level > 0:
            above = torch.bmm(at_linear, weights.level(layout, level).mT)
            if wires.residuals[level]:
                above.addcmul_(wires.residual[: layout.counts[level]], at_output)
        visit(level, _outer(passed.inputs[level], at_linear, scratch))
    return biases


def _outer(inputs: Tensor, at_outputs: Tensor, scratch: Tensor) -> Tensor:
    """[n, in, out]: products [n, B, in] and [n, B, out] summed over the batch."""
    shape = (len(inputs), inputs.shape[2], at_outputs.shape[2])
    room = scratch[: math.prod(shape)].view(shape)
    return torch.bmm(inputs.mT, at_outputs, out=room)
