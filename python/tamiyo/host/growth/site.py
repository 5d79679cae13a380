"""A place where units are added, as a function of the new units' own weights.

New units touch a network at two ends only: at the input of the layer that makes them and at the
outputs of the layers that read them. With both recorded, what such units would do to the loss, to
first order, can be worked out without running the network again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from tamiyo.host.modules import unit_axis

__all__ = ["Function", "GrowthSite", "Outlet", "Pass", "Passage", "has_kink", "slopes_at_zero"]

Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

_NEAR_ZERO = 2.0**-10
_KINK = 0.1
"""Relative difference of the slopes on both sides of zero from which an activation has a kink."""


class Passage(NamedTuple):
    """One thing that units pass through on the way to a reader."""

    function: Function
    activates: bool
    """Whether it is the activation, which is linear as far as silent units go."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """A layer that reads the units: `width` neighbouring inputs of its weight for each of them."""

    reader: nn.Module
    axis: int
    """Axis of the inputs in the reader's weight."""
    width: int
    passages: Sequence[Passage]

    def flatten(self, weight: torch.Tensor) -> torch.Tensor:
        """A reader's weight, unit by unit, shape [units, outgoing weights of a unit]."""
        moved = weight.movedim(self.axis, 0)
        return moved.reshape(len(moved) // self.width, -1)

    def unflatten(self, flat: torch.Tensor) -> torch.Tensor:
        """The inverse of `flatten`."""
        shape = list(self.reader.get_parameter("weight").shape)
        del shape[self.axis]
        return flat.reshape(-1, *shape).movedim(0, self.axis)

    def see(self, made: torch.Tensor, *, linear: bool = False) -> torch.Tensor:
        """What arrives at the reader of what the layer has made.

        Args:
            made: The units' values.
            linear: Leave the activation out.
        """
        for passage in self.passages:
            made = made if linear and passage.activates else passage.function(made)
        return made


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward and backward pass at a site."""

    inputs: torch.Tensor
    """What the layer read, of some samples of the batch: shape [B, ...]."""
    gradients: Sequence[torch.Tensor]
    """Gradient of the loss at each reader's output, of the same samples."""


@dataclass(frozen=True, slots=True)
class GrowthSite:
    """A layer that is given units, and where they are read."""

    layer: nn.Module
    outlets: Sequence[Outlet]
    kinked: bool
    """Whether the activation has a kink at zero, as rectifiers do: there the gradient of a unit
    with incoming weights of exactly zero is not defined, and torch takes it to be zero."""
    normalized: bool = False
    """Whether a batch normalisation is on the way. It divides by the spread of a unit, so that the
    first step of one with incoming weights of zero would be enormous."""

    @property
    def axis(self) -> int:
        """Axis of the units in the layer's weight."""
        return unit_axis(self.layer) or 0

    @property
    def most_directions(self) -> int:
        """How many units can start in different directions."""
        incoming, outgoing = self.incoming_size, sum(self.outgoing_sizes)
        return min(incoming, outgoing)

    @property
    def incoming_size(self) -> int:
        """Incoming weights of a unit, without its bias."""
        weight = self.layer.get_parameter("weight")
        return weight.numel() // weight.shape[self.axis]

    @property
    def outgoing_sizes(self) -> Sequence[int]:
        """Outgoing weights of a unit, per outlet."""
        weights = [outlet.reader.get_parameter("weight") for outlet in self.outlets]
        return [
            weight.numel() // weight.shape[outlet.axis] * outlet.width
            for outlet, weight in zip(self.outlets, weights, strict=True)
        ]

    def incoming(self, flat: torch.Tensor) -> torch.Tensor:
        """Incoming weights of k units as a weight of the layer, from shape [k, incoming_size]."""
        shape = list(self.layer.get_parameter("weight").shape)
        del shape[self.axis]
        return flat.reshape(-1, *shape).movedim(0, self.axis)

    def outgoing(self, flat: torch.Tensor) -> Sequence[torch.Tensor]:
        """Outgoing weights of k units as weights of the readers, from shape [k, all of them]."""
        parts = flat.split(list(self.outgoing_sizes), dim=1)
        return [outlet.unflatten(part) for outlet, part in zip(self.outlets, parts, strict=True)]

    def effect(
        self,
        passes: Sequence[Pass],
        incoming: torch.Tensor,
        outgoing: torch.Tensor,
        *,
        linear: bool = False,
    ) -> torch.Tensor:
        """First-order change of the loss if k units were added to the network that was recorded.

        It is the sum over all readers and samples of the gradient at the reader's output times what
        the units would add there; linear in the outgoing weights.

        Args:
            passes: What was recorded.
            incoming: Shape [k, incoming_size].
            outgoing: Shape [k, outgoing weights of a unit].
            linear: Leave the activation out.

        Returns:
            A scalar.
        """
        weight, reading = self.incoming(incoming), self.outgoing(outgoing)
        terms = []
        for recorded in passes:
            made = _apply(self.layer, recorded.inputs, weight)
            for outlet, gradient, read in zip(
                self.outlets, recorded.gradients, reading, strict=True
            ):
                seen = outlet.see(made, linear=linear)
                terms.append((gradient * _apply(outlet.reader, seen, read)).sum())
        return torch.stack(terms).sum()

    def activity(self, passes: Sequence[Pass], incoming: torch.Tensor) -> torch.Tensor:
        """Mean square of what the readers see of k units, shape [k].

        Args:
            passes: What was recorded.
            incoming: Shape [k, incoming_size].
        """
        weight, count = self.incoming(incoming), len(incoming)
        squares, numbers = incoming.new_zeros(count), 0
        for recorded in passes:
            made = _apply(self.layer, recorded.inputs, weight)
            for outlet in self.outlets:
                seen = outlet.see(made)
                if isinstance(outlet.reader, nn.Linear):
                    # Flattened feature maps hold the positions of a unit side by side.
                    seen = seen.reshape(-1, count, outlet.width)
                units = seen.movedim(1, 0).reshape(count, -1)
                squares = squares + units.square().sum(dim=1)
                numbers += units.shape[1]
        return squares / numbers


def slopes_at_zero(activation: Function) -> tuple[float, float] | None:
    """Slopes of an activation just below and just above zero.

    Returns:
        `None` unless it maps zero to zero and at least one slope is positive: elsewhere a unit
        without incoming weights would change the network, or could never be trained.
    """
    with torch.no_grad():
        low, middle, high = activation(torch.tensor([[-_NEAR_ZERO, 0.0, _NEAR_ZERO]]))[0].tolist()
    below, above = -low / _NEAR_ZERO, high / _NEAR_ZERO
    return (below, above) if middle == 0.0 and max(below, above) > _KINK else None


def has_kink(below: float, above: float) -> bool:
    """Whether the slopes on both sides of zero differ by more than 10 %."""
    return abs(below - above) > _KINK * max(below, above)


def _apply(module: nn.Module, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What a layer makes of its inputs with another weight and without a bias.

    The module itself is not called, since that would run everybody's hooks.
    """
    if isinstance(module, nn.Linear):
        return functional.linear(inputs, weight)
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        result: torch.Tensor = module._conv_forward(inputs, weight, None)
        return result
    transposed: Any = module
    convolve = getattr(functional, f"conv_transpose{weight.dim() - 2}d")
    geometry = (transposed.stride, transposed.padding, transposed.output_padding)
    return torch.as_tensor(convolve(inputs, weight, None, *geometry, 1, transposed.dilation))
