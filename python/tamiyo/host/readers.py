"""Which weights read the units of a layer, where the recorded data flow shows it exactly."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tamiyo.host.layers import Layers
from tamiyo.host.modules import ATEN_ACTIVATIONS, activation_name, unit_axis

__all__ = ["Reader", "UnitReaders", "unit_count", "unit_readers"]

_KEEPS_UNITS = frozenset(ATEN_ACTIVATIONS) | {
    *("view", "_unsafe_view", "_reshape_alias", "alias", "detach", "clone", "_to_copy"),
    *("squeeze", "unsqueeze", "native_dropout", "empty_like", "bernoulli", "ones_like"),
    *("add", "sub", "mul", "div", "neg", "threshold", "feature_dropout"),
    *("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "mean"),
    *("adaptive_avg_pool1d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
}
"""Operators after which a unit's values are still the same unit's, in the same order."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that reads units: `width` neighbouring inputs of its weight for each unit."""

    layer_id: int
    axis: int
    """Axis of the inputs in the reader's weight."""
    width: int

    def inputs(self, units: torch.Tensor) -> torch.Tensor:
        """Mask over the reader's inputs from a mask over units."""
        return units.repeat_interleave(self.width)


@dataclass(slots=True)
class UnitReaders:
    """Everything between a layer's units and the weights that read them."""

    readers: list[Reader] = field(default_factory=list)
    normalizations: list[int] = field(default_factory=list)


def unit_count(module: nn.Module) -> int | None:
    """Number of output units of a linear or convolutional module; `None` for others.

    Grouped convolutions and parametrised modules do not count: their weights' rows cannot be
    exchanged one by one.
    """
    axis = unit_axis(module)
    if axis is None or hasattr(module, "parametrizations") or getattr(module, "groups", 1) != 1:
        return None
    weight = module.weight
    return weight.shape[axis] if isinstance(weight, nn.Parameter) else None


def unit_readers(layers: Layers, layer_id: int) -> UnitReaders | None:
    """The readers of a layer's units, or `None` where they are not known exactly.

    Units are followed through activations, normalisations and operators that keep them apart, to
    linear and convolutional layers. A residual sum, a second call, tied weights or an output of the
    model on the way end it: other data would be touched too.
    """
    units = unit_count(layers.module(layer_id))
    if units is None or layers.flow is None or not _alone(layers, layer_id):
        return None
    found = UnitReaders()
    waiting = [layer_id]
    while waiting:
        source = waiting.pop()
        if layers.names[source] in layers.flow.outputs or not layers.successors[source]:
            return None
        for target in layers.successors[source]:
            flow = layers.flow.edges[layers.names[source], layers.names[target]]
            if flow.joins or not flow.via <= _KEEPS_UNITS or not _alone(layers, target):
                return None
            module = layers.module(target)
            if activation_name(module) is not None:
                waiting.append(target)
            elif isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
                found.normalizations.append(target)
                waiting.append(target)
            elif (reader := _reader(layers, layer_id, target, units)) is not None:
                found.readers.append(reader)
            else:
                return None
    return found


def _alone(layers: Layers, layer_id: int) -> bool:
    """Whether the layer is called once a step and shares no parameter."""
    name = layers.names[layer_id]
    calls = layers.flow.layers.get(name, 0) if layers.flow is not None else 0
    return calls == 1 and name not in layers.ownership.tied


def _reader(layers: Layers, layer_id: int, target: int, units: int) -> Reader | None:
    module = layers.module(target)
    if unit_count(module) is None or not isinstance(module.weight, nn.Parameter):
        return None
    axis = 0 if isinstance(module, _ConvTransposeNd) else 1
    inputs = module.weight.shape[axis]
    if isinstance(module, _ConvNd) or not layers.channels_second(layer_id):
        return Reader(target, axis, 1) if inputs == units else None
    # Flattened feature maps: the positions of a channel are neighbours.
    return Reader(target, axis, inputs // units) if inputs % units == 0 else None
