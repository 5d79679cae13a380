"""Plant a seed behind a layer: new capacity that proves itself before the network relies on it."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import (
    HOOKS,
    Action,
    Choice,
    Context,
    Number,
    ParameterRule,
    Refusal,
    Undo,
)
from tamiyo.host.actions.widen import MOST_GRADIENT_STEPS, check_gradients
from tamiyo.host.grafts import graftable
from tamiyo.host.growth.site import GrowthSite, Outlet, Passage
from tamiyo.host.growth.start import DeferredStart, Sprout
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
    of a convolution a 3-wide and a 1-wide convolution. Its last weights start at zero. With
    the initialisation `gradmax` its first ones do so too for `gradient_steps` steps, and then the
    last ones are given those values for which the gradient of the first is largest, see `Widen`.
    Clipping the gradients' norm over the whole model takes the seed's into account.
    """

    type = AdaptationType.ADD_SEED
    rules: ClassVar[Mapping[str, ParameterRule]] = {
        "units": Number(1e-3, MOST_UNITS, default=0.25),
        "training_steps": Number(1, MOST_STEPS, default=20),
        "blending_steps": Number(1, MOST_STEPS, default=50),
        "holding_steps": Number(1, MOST_STEPS, default=20),
        "schedule": Choice(tuple(SCHEDULES), default="cosine"),
        "initialization": Choice(("zero_outgoing", "gradmax"), default="zero_outgoing"),
        "gradient_steps": Number(1, MOST_GRADIENT_STEPS, default=4),
    }
    """`units`, the width of the bottleneck, is a fraction of the layer's units if below 1."""

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether it is a plain linear or convolutional layer with nothing grafted on it."""
        return graftable(layers, layer_id)

    def onset(self, parameters: Mapping[str, float | str]) -> int:
        """See `Action.onset`."""
        stages = ("training_steps", "blending_steps")
        return 1 + sum(round(float(parameters[stage])) for stage in stages)

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
        by_gradient = parameters.get("initialization") == "gradmax"
        if by_gradient:
            check_gradients(context)
        with ExitStack() as undone, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(context.seed)
            undone.callback(context.tend_seeds())
            sprouts = []
            for layer_id in target:
                network = _network(context.layers.module(layer_id), float(parameters["units"]))
                if by_gradient:
                    sprouts.append(_silenced(network))
                undone.callback(context.seed_bed.plant(layer_id, network, plan))
            if by_gradient:
                steps = round(float(parameters["gradient_steps"]))
                if steps >= plan.training:
                    raise Refusal("a seed needs training steps after those that are recorded")
                shield = partial(context.faults.shield, HOOKS)
                start = DeferredStart(sprouts, "gradmax", steps, context.seed, shield)
                undone.callback(context.defer(start))
            return undone.pop_all().close


def _silenced(network: nn.Sequential) -> Sprout:
    """The units of a seed's bottleneck, with zeros on both sides."""
    first, _, last = network
    nn.init.zeros_(first.get_parameter("weight"))
    nn.init.zeros_(first.get_parameter("bias"))
    outlet = Outlet(last, 1, 1, [Passage(functional.gelu, activates=True)])
    return Sprout(GrowthSite(first, [outlet], kinked=False), 0, len(first.get_parameter("weight")))


def _network(layer: nn.Module, amount: float) -> nn.Sequential:
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
