"""Which weights read the units of a layer, where the recorded data flow shows it exactly."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tamiyo.host.layers import Layers
from tamiyo.host.modules import ATEN_ACTIVATIONS, activation_name, unit_axis
from tamiyo.host.recorder import Flow
from tamiyo.host.recurrent import (
    gate_count,
    hidden_units,
    input_weights,
    is_recurrent,
    keeps_hidden_units,
    kept_state,
    unit_columns,
    unit_rows,
)

__all__ = [
    "Maker",
    "Reader",
    "UnitReaders",
    "unit_count",
    "unit_makers",
    "unit_readers",
    "units_made",
]

_ONE_BY_ONE = frozenset(ATEN_ACTIVATIONS) | {
    *("view", "_unsafe_view", "_reshape_alias", "alias", "detach", "clone", "_to_copy"),
    *("squeeze", "unsqueeze", "native_dropout", "empty_like", "bernoulli", "ones_like"),
    *("add", "sub", "mul", "div", "neg", "threshold", "feature_dropout"),
}
"""Operators that do not combine any two values of one tensor."""
_KEEPS_UNITS = _ONE_BY_ONE | {
    *("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "mean"),
    *("adaptive_avg_pool1d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
}
"""Operators after which a unit's values are still the same unit's, in the same order."""


@dataclass(frozen=True, slots=True)
class Maker:
    """A parameter that makes units: each has a slice in each of so many equal blocks."""

    name: str
    axis: int = 0
    """Axis of the units in the parameter."""
    blocks: int = 1
    """The gates of a recurrent layer; 1 elsewhere."""

    def slices(self, units: torch.Tensor) -> torch.Tensor:
        """Mask over the parameter's slices from a mask over units."""
        return units.repeat(self.blocks)

    def positions(self, index: torch.Tensor, units: int) -> torch.Tensor:
        """Places of slices from numbers of units, -1 for new ones, of so many units."""
        starts = torch.arange(self.blocks)[:, None] * units
        return torch.where(index < 0, -1, starts + index).flatten()


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that reads units: `width` neighbouring inputs of its weight for each unit."""

    layer_id: int
    axis: int
    """Axis of the inputs in the reader's weight."""
    width: int
    name: str = "weight"
    """The weight; a recurrent layer has several, and reads its own units through some."""

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


def units_made(module: nn.Module) -> int | None:
    """The same for recurrent layers too, of which it is the number of hidden units."""
    units = unit_count(module)
    return hidden_units(module) if units is None else units


def unit_makers(module: nn.Module, *, every_layer: bool = False) -> Sequence[Maker]:
    """The parameters that make a layer's units, weights before biases.

    Args:
        module: A layer that `units_made` knows.
        every_layer: Whether the units of all stacked layers of a recurrent one are meant; else
            those of the last one.
    """
    if isinstance(module, nn.RNNBase):
        names, gates = unit_rows(module, every_layer=every_layer), gate_count(module)
        return [Maker(name, blocks=gates) for name in names]
    makers = [Maker("weight", unit_axis(module) or 0), Maker("bias")]
    return [maker for maker in makers if module._parameters.get(maker.name) is not None]


def unit_readers(layers: Layers, layer_id: int, *, every_layer: bool = False) -> UnitReaders | None:
    """The readers of a layer's units, or `None` where they are not known exactly.

    Units are followed through activations, normalisations and operators that keep them apart, to
    linear, convolutional and recurrent layers. A residual sum, a second call, tied weights or an
    output of the model on the way end it: other data would be touched too. So does an initial state
    that the program gives to a recurrent layer.

    Args:
        layers: The layers.
        layer_id: The layer.
        every_layer: See `unit_makers`.
    """
    made = layers.module(layer_id)
    units = units_made(made)
    if units is None or layers.flow is None or not _alone(layers, layer_id):
        return None
    found = UnitReaders()
    if isinstance(made, nn.RNNBase):
        if kept_state(layers.model, units):
            return None
        inner = unit_columns(made, every_layer=every_layer)
        found.readers += [Reader(layer_id, 1, 1, name) for name in inner]
    waiting = [layer_id]
    while waiting:
        source = waiting.pop()
        if layers.names[source] in layers.flow.outputs or not layers.successors[source]:
            return None
        for target in layers.successors[source]:
            flow = layers.flow.edges[layers.names[source], layers.names[target]]
            apart = _keeps_units(layers, layer_id, flow, every_layer=every_layer)
            if flow.joins or not apart or not _alone(layers, target):
                return None
            module = layers.module(target)
            if activation_name(module) is not None:
                waiting.append(target)
            elif isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
                found.normalizations.append(target)
                waiting.append(target)
            elif readers := _readers(layers, layer_id, target, units):
                found.readers += readers
            else:
                return None
    return found


def _alone(layers: Layers, layer_id: int) -> bool:
    """Whether the layer is called once a step, with no state, and shares no parameter."""
    name, flow = layers.names[layer_id], layers.flow
    if flow is None or name in flow.stateful:
        return False
    return flow.layers.get(name) == 1 and name not in layers.ownership.tied


def _keeps_units(layers: Layers, layer_id: int, flow: Flow, *, every_layer: bool) -> bool:
    """Whether what the units of a layer pass through on one way leaves them apart."""
    module, via = layers.module(layer_id), flow.via
    if not isinstance(module, nn.RNNBase):
        return via <= _KEEPS_UNITS
    shapes = layers.flow.shapes if layers.flow is not None else {}
    shape = shapes.get(layers.names[layer_id], ())
    trusted = keeps_hidden_units(module, via, shape, every_layer=every_layer)
    return via - trusted <= _ONE_BY_ONE


def _readers(layers: Layers, layer_id: int, target: int, units: int) -> Sequence[Reader]:
    """The weights of a layer that read units; none where it is not known which inputs they are."""
    module = layers.module(target)
    if is_recurrent(module):
        fits = module.input_size == units and not layers.channels_second(layer_id)
        return [Reader(target, 1, 1, name) for name in input_weights(module) if fits]
    if unit_count(module) is None or not isinstance(module.weight, nn.Parameter):
        return ()
    axis = 0 if isinstance(module, _ConvTransposeNd) else 1
    inputs = module.weight.shape[axis]
    if isinstance(module, _ConvNd) or not layers.channels_second(layer_id):
        return [Reader(target, axis, 1)] if inputs == units else ()
    # Flattened feature maps: the positions of a channel are neighbours.
    return [Reader(target, axis, inputs // units)] if inputs % units == 0 else ()
