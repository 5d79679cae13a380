"""Activations of many layers at once, where each layer may have its own kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tamiyo.envs.training.hosts import ACTIVATIONS, Activation

__all__ = ["LEAK", "KindGroup", "activate", "group_kinds", "through_activation"]

LEAK = 0.01
"""Slope of a leaky rectifier on its negative side, PyTorch's default."""


@dataclass(frozen=True, slots=True)
class KindGroup:
    """Layers of one level that share an activation."""

    kind: Activation
    index: Tensor | None
    """Which ones; `None` for all that no later group of the level names."""


def group_kinds(kinds: Tensor) -> Sequence[KindGroup]:
    """Groups of equal kinds, the commonest first: the others overwrite what it has made of all.

    Args:
        kinds: [n], indices into `ACTIVATIONS`.
    """
    present, counts = kinds.unique(return_counts=True)
    order = present[counts.argsort(descending=True, stable=True)].tolist()
    rest = [KindGroup(ACTIVATIONS[kind], (kinds == kind).nonzero()[:, 0]) for kind in order[1:]]
    return [KindGroup(ACTIVATIONS[order[0]], None), *rest]


def activate(groups: Sequence[KindGroup], z: Tensor, units: Tensor) -> None:
    """Send [n, B, P] inputs through the activation of their layer, in place.

    Args:
        groups: Which layers have which.
        z: Inputs, then outputs.
        units: [n, P], the units that exist: a sigmoid makes something of nothing.
    """
    common, *others = groups
    own = [_activated(group.kind, z[group.index], units[group.index]) for group in others]
    _activated(common.kind, z, units)
    for group, outputs in zip(others, own, strict=True):
        z[group.index] = outputs


def through_activation(groups: Sequence[KindGroup], gradient: Tensor, a: Tensor) -> Tensor:
    """Gradient at the inputs from the gradient at the outputs `a`, both [n, B, P]."""
    common, *others = groups
    out = _backward(common.kind, gradient, a)
    for group in others:
        out[group.index] = _backward(group.kind, gradient[group.index], a[group.index])
    return out


def _activated(kind: Activation, z: Tensor, units: Tensor) -> Tensor:
    """One activation, elementwise and in place."""
    match kind:
        case "relu":
            return z.relu_()
        case "leaky_relu":
            return functional.leaky_relu_(z, LEAK)
        case "elu":
            return functional.elu_(z)
        case "tanh":
            return z.tanh_()
        case "sigmoid":
            return z.sigmoid_().mul_(units[:, None])


def _backward(kind: Activation, gradient: Tensor, a: Tensor) -> Tensor:
    aten = torch.ops.aten
    match kind:
        case "relu":
            result = aten.threshold_backward(gradient, a, 0.0)
        case "leaky_relu":
            result = aten.leaky_relu_backward(gradient, a, LEAK, True)
        case "elu":
            result = aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, a)
        case "tanh":
            result = aten.tanh_backward(gradient, a)
        case "sigmoid":
            result = aten.sigmoid_backward(gradient, a)
    return torch.as_tensor(result)
