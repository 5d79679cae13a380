"""Swap an activation that dies or saturates for another one."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import ClassVar

from torch import nn

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import Action, Choice, Context, ParameterRule, Refusal, Undo
from tamiyo.host.layers import Layers
from tamiyo.host.modules import activation_name
from tamiyo.host.surgery import exchange

__all__ = ["ChangeActivation"]

_FACTORIES: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
}


class ChangeActivation(Action):
    """Replaces an activation module; the target is the activation or the layer that it follows.

    Not function-preserving: leaky ReLU for ReLU changes outputs by the slope (0.01), others by
    more. Activations that the model calls as functions cannot be replaced from outside.
    """

    type = AdaptationType.CHANGE_ACTIVATION
    rules: ClassVar[Mapping[str, ParameterRule]] = {"to": Choice(tuple(_FACTORIES))}

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether the layer is an activation module without parameters, or one follows it.

        A module that follows several layers can be swapped for all of them only as itself.
        """
        site = _site(layers, layer_id)
        if site is None or layers.parameters(site):
            return False
        return site == layer_id or len(layers.predecessors[site]) == 1

    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """See `Action.apply`."""
        layers, name = context.layers, str(parameters["to"])
        swaps: dict[nn.Module, nn.Module] = {}
        for layer_id in target:
            site = _site(layers, layer_id)
            old = layers.module(site) if site is not None else None
            if old is None or activation_name(old) == name:
                raise Refusal(f"the activation of layer {layer_id} is already {name}")
            swaps[old] = _FACTORIES[name]().train(old.training)
        with ExitStack() as undone:
            for old, new in swaps.items():
                undone.callback(exchange(context.run, layers.model, old, new))
            return undone.pop_all().close


def _site(layers: Layers, layer_id: int) -> int | None:
    """The layer id of the activation module to replace."""
    module = layers.module(layer_id)
    if activation_name(module) is not None:
        # The model itself has no parent in which it could be replaced.
        return layer_id if module is not layers.model else None
    activation = layers.activation(layer_id)
    return activation.layer_id if activation is not None else None
