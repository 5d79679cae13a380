"""Forward and backward pass of all hosts of a cohort, level by level, in batched products.

The backward pass is written out: hosts share nothing, every derivative is one line, and there is
no graph to build and to walk for operations of a few microseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from tamiyo.envs.training.activations import activate, through_activation
from tamiyo.envs.training.network import Network

__all__ = ["Passed", "backward", "cross_entropy", "forward"]


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


def forward(network: Network, x: Tensor, *, keep_linear: bool = False) -> Passed:
    """Pass a batch of each host through it.

    Args:
        network: The hosts.
        x: [H, B, 64].
        keep_linear: Whether to keep what the activations are given.
    """
    passed, h = Passed(), x
    ends: list[Tensor] = []
    for level in network.levels:
        source = h[: level.hosts]
        a = torch.baddbmm(level.bias, source, level.weight)
        if keep_linear:
            passed.linear.append(a.clone())
        activate(level.kinds, a, level.units)
        passed.inputs.append(source)
        passed.active.append(a)
        h = a if level.residual is None else torch.addcmul(a, level.residual, source)
        if level.ending.start < level.ending.stop:
            end = h[level.ending]
            if level.skip is not None:
                end = torch.addcmul(end, level.skip, passed.active[0][level.ending])
            ends.append(end)
    h = torch.cat(ends[::-1])
    passed.inputs.append(h)
    passed.logits = torch.baddbmm(network.last_bias, h, network.last)
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
    at_chosen = torch.zeros_like(log_probability).scatter_(1, chosen, -1.0 / labels.shape[1])
    through_softmax = torch.ops.aten._log_softmax_backward_data
    return loss, through_softmax(at_chosen, log_probability, 1, logits.dtype).mT


def backward(
    network: Network,
    passed: Passed,
    at_logits: Tensor,
    visit: Callable[[int, Tensor, Tensor], None],
) -> None:
    """Walk back through the levels, the last layers first.

    Gradients of biases are left in `network.bias_gradient`. Those of weights are not made here,
    because all of them together do not fit into the caches.

    Args:
        network: The hosts; `visit` may change the weights of the level that it is given.
        passed: Their forward pass.
        at_logits: [H, B, C], gradient of each host's loss.
        visit: Called with each level's number, its inputs [n, B, in] and the gradient [n, B, out]
            before its activation, whose product is the gradient of its weights.
    """
    network.bias_gradient.zero_()
    torch.sum(at_logits, dim=1, out=network.last_bias_gradient)
    at_outputs = torch.bmm(at_logits, network.last.mT)
    at_end = None if network.skip is None else at_outputs.clone()
    visit(len(network.levels), passed.inputs[-1], at_logits)
    for number, level in reversed(list(enumerate(network.levels))):
        # Hosts that end at this level have been waiting here for it.
        at_output = at_outputs[: level.hosts]
        if number == 0 and network.skip is not None and at_end is not None:
            at_output.addcmul_(network.skip, at_end)
        at_linear = through_activation(level.kinds, at_output, passed.active[number])
        torch.sum(at_linear, dim=1, out=level.bias_gradient)
        if number > 0:
            transposed = level.weight.mT
            if level.residual is None:
                torch.bmm(at_linear, transposed, out=at_output)
            else:
                at_output.mul_(level.residual).baddbmm_(at_linear, transposed)
        visit(number, passed.inputs[number], at_linear)
