"""Plant a seed behind a layer: new capacity that proves itself before the network relies on it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import torch
from torch import nn

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import (
    Action,
    Choice,
    Context,
    Number,
    ParameterRule,
    Undo,
)
from tamiyo.host.grafts import graftable
from tamiyo.host.layers import Layers
from tamiyo.host.lifecycle import SCHEDULES
from tamiyo.host.modules import unit_axis
from tamiyo.host.seeds import SeedPlan
from tamiyo.host.units import MOST_UNITS, unit_share

__all__ = ["MOST_STEPS", "AddSeed"]

MOST_STEPS = 1_000_000


class AddSeed(Action):
    """Adds a residual module `s` behind a layer with output `h`, in four stages.

    *Training* in isolation: the output stays `h` exactly, so do the gradients of all other
    parameters, and the seed follows the gradient at the layer's output. *Blending*: `h + alpha * s`
    while alpha rises from 0 to 1 along a schedule. *Holding*: alpha is 1. Then *permanent*.
    Stages are counted in optimiser steps; the defaults end within the 100 steps that an adaptation
    is watched for, so that one which hurts is taken out again as a whole.

    The seed of a linear layer is a bottleneck of two linear layers with a GELU between them, that
    of a convolution a 3-wide and a 1-wide convolution. Its last weights start at zero. Clipping
    the gradients' norm over the whole model takes the seed's into account.
    """

    type = AdaptationType.ADD_SEED
    rules: ClassVar[Mapping[str, ParameterRule]] = {
        "units": Number(1e-3, MOST_UNITS, default=0.25),
        "training_steps": Number(1, MOST_STEPS, default=20),
        "blending_steps": Number(1, MOST_STEPS, default=50),
        "holding_steps": Number(1, MOST_STEPS, default=20),
        "schedule": Choice(tuple(SCHEDULES), default="cosine"),
    }
    """`units`, the width of the bottleneck, is a fraction of the layer's units if below 1."""

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether it is a plain linear or convolutional layer with nothing grafted on it."""
        return graftable(layers, layer_id)

    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """See `Action.apply`."""
        plan = SeedPlan(
            training=round(float(parameters["training_steps"])),
            blending=round(float(parameters["blending_steps"])),
            holding=round(float(parameters["holding_steps"])),
            schedule=str(parameters["schedule"]),
        )
        with ExitStack() as undone, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(context.seed)
            undone.callback(context.tend_seeds())
            for layer_id in target:
                network = _network(context.layers.module(layer_id), float(parameters["units"]))
                undone.callback(context.seed_bed.plant(layer_id, network, plan))
            return undone.pop_all().close


def _network(layer: nn.Module, amount: float) -> nn.Module:
    """Maps the layer's output to zeros of the same shape, on its device."""
    weight = layer.get_parameter("weight")
    units = weight.shape[unit_axis(layer) or 0]
    hidden = unit_share(amount, units)
    kind: Any = type(layer)
    if isinstance(layer, nn.Linear):
        first, last = nn.Linear(units, hidden), nn.Linear(hidden, units)
    else:
        first, last = kind(units, hidden, 3, padding=1), kind(hidden, units, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.GELU(), last).to(weight)
