"""Put a normalisation behind a layer without changing what the network computes."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import Action, Context, ParameterRule, Undo
from tamiyo.host.grafts import gated, graftable
from tamiyo.host.layers import Layers
from tamiyo.host.modules import is_normalization, unit_axis
from tamiyo.host.surgery import Surgery

__all__ = ["InsertNormalization"]


class InsertNormalization(Action):
    """Adds `h + a * (norm(h) - h)` with a trainable gate `a`, which is 0 at first.

    Outputs and all gradients are exactly what they were; training opens the gate as far as it pays
    (the idea of ReZero, Bachlechner et al., UAI 2021, arXiv 2003.04887). The normalisation is
    `LayerNorm` over the units of a linear layer and its counterpart for feature maps,
    `GroupNorm` with one group, for a convolution: neither depends on the batch.
    """

    type = AdaptationType.INSERT_NORMALIZATION
    rules: ClassVar[Mapping[str, ParameterRule]] = {}

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether it is a plain inner layer with nothing that normalises directly behind it."""
        if not graftable(layers, layer_id) or layers.flow is None:
            return False
        output = layers.names[layer_id] in layers.flow.outputs
        followed = any(is_normalization(layers.module(i)) for i in layers.successors[layer_id])
        return (
            not output and not followed and len(layers.module(layer_id).get_parameter("weight")) > 1
        )

    def apply(
        self,
        context: Context,
        target: Sequence[int],
        parameters: Mapping[str, float | str],  # noqa: ARG002
    ) -> Undo:
        """See `Action.apply`."""
        layers = context.layers
        with Surgery(context.run, layers) as surgery:
            for layer_id in target:
                module = layers.module(layer_id)
                weight = module.get_parameter("weight")
                norm = _normalization(module).to(weight)
                gate = nn.Parameter(torch.zeros(1).to(weight))
                surgery.replace(module, gated(module, norm, gate))
                surgery.join(layer_id, norm.parameters())
                context.activity.pop(layer_id, None)
        return surgery.undo


def _normalization(module: nn.Module) -> nn.Module:
    units = module.get_parameter("weight").shape[unit_axis(module) or 0]
    return nn.LayerNorm(units) if isinstance(module, nn.Linear) else nn.GroupNorm(1, units)
