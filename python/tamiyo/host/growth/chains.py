"""Turns a chain of units in a traced model into a growth site, where all on the way is known."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _MaxPoolNd,
)

from tamiyo.host.growth.site import (
    Function,
    GrowthSite,
    Outlet,
    Passage,
    has_kink,
    slopes_at_zero,
)
from tamiyo.host.layers import Layers
from tamiyo.host.modules import ATEN_ACTIVATIONS, activation_name
from tamiyo.host.readers import Reader
from tamiyo.host.refusal import Refusal
from tamiyo.host.statistics import apply_activation
from tamiyo.host.units import UnitChain, modules_between

__all__ = ["growth_site"]

_STRUCTURAL = (
    *(_AvgPoolNd, _MaxPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd),
    *(nn.Flatten, nn.Identity),
)
"""Modules that only choose or average positions, and can be run again on new units alone."""
_HARMLESS = frozenset(
    (
        *("alias", "clone", "_to_copy", "bernoulli", "native_dropout", "feature_dropout"),
        *("empty_like", "ones_like", "mul", "div"),
    )
)
"""Operators that scale units by one at most: copies, and dropout with its arithmetic."""


def growth_site(layers: Layers, chain: UnitChain) -> GrowthSite:
    """Where a layer's new units would come from and go to.

    Args:
        layers: The layers.
        chain: The chain of the layer's units.

    Raises:
        Refusal: an unknown operator or an activation that does not keep silent units silent is on
            the way, so that their first steps could not be foreseen.
    """
    outlets = [_outlet(layers, chain, reader) for reader in chain.readers]
    kinks = []
    for outlet in outlets:
        for passage in outlet.passages:
            if passage.activates:
                slopes = slopes_at_zero(passage.function)
                if slopes is None:
                    name = layers.names[chain.layer_id]
                    raise Refusal(f"the activation behind {name!r} does not keep zero at zero")
                kinks.append(has_kink(*slopes))
    normalized = any(activation_name(layers.module(i)) is None for i in chain.carriers)
    return GrowthSite(layers.module(chain.layer_id), outlets, any(kinks), normalized)


def _outlet(layers: Layers, chain: UnitChain, reader: Reader) -> Outlet:
    way = _way(layers, chain, reader.layer_id)
    passages = [
        passage
        for source, target in pairwise(way)
        for passage in (*_between(layers, source, target), *_at(layers, target, reader.layer_id))
    ]
    if sum(passage.activates for passage in passages) > 1:
        raise Refusal(f"two activations lie between {layers.names[way[0]]!r} and what reads it")
    return Outlet(layers.module(reader.layer_id), reader.axis, reader.width, passages)


def _way(layers: Layers, chain: UnitChain, reader: int) -> Sequence[int]:
    """Layers from the chain's first one to a reader; nothing joins them, so there is one way."""
    inner = (chain.layer_id, *chain.carriers)
    way = [reader]
    while way[0] != chain.layer_id:
        (source,) = (i for i in layers.predecessors[way[0]] if i in inner)
        way.insert(0, source)
    return way


def _at(layers: Layers, target: int, reader: int) -> Iterator[Passage]:
    """What a layer on the way does to silent units."""
    if target == reader:
        return
    module = layers.module(target)
    if isinstance(module, _BatchNorm):
        yield Passage(partial(_normalized, eps=module.eps), activates=False)
    else:
        yield Passage(_activation(module), activates=True)


def _between(layers: Layers, source: int, target: int) -> Iterator[Passage]:
    """What lies between two layers that follow each other."""
    modules = modules_between(layers, source, target)
    if modules is None:
        yield from _written_out(layers, source, target)
        return
    for module in _flat(modules):
        if isinstance(module, _STRUCTURAL):
            yield Passage(module.forward, activates=False)
        elif not isinstance(module, _DropoutNd):
            raise Refusal(f"a {type(module).__name__} lies behind {layers.names[source]!r}")


def _written_out(layers: Layers, source: int, target: int) -> Iterator[Passage]:
    """The same in a model's own code, of which only the operators are known."""
    flow = layers.flow
    if flow is None:
        raise Refusal("the data flow was not recorded")
    via = flow.edges[layers.names[source], layers.names[target]].via
    activations = via & ATEN_ACTIVATIONS.keys()
    if unknown := sorted(via - _HARMLESS - activations):
        raise Refusal(f"what {unknown[0]} does behind {layers.names[source]!r} is not known")
    for operator in activations:
        # A rectifier with a bound is seen as its clamp; how far up that is does not matter at zero.
        name = "relu6" if operator == "hardtanh" else ATEN_ACTIVATIONS[operator]
        yield Passage(partial(apply_activation, name), activates=True)


def _flat(modules: Sequence[nn.Module]) -> Iterator[nn.Module]:
    for module in modules:
        if type(module) is nn.Sequential:
            yield from _flat(list(module.children()))
        else:
            yield module


def _normalized(units: torch.Tensor, eps: float) -> torch.Tensor:
    """What a new batch normalisation makes of units in training."""
    return functional.batch_norm(units, None, None, training=True, eps=eps)


def _activation(module: nn.Module) -> Function:
    """An activation module as a function of its own options, without its hooks."""
    if isinstance(module, nn.RReLU):
        return partial(functional.rrelu, lower=module.lower, upper=module.upper)
    if isinstance(module, nn.PReLU):
        return lambda units: functional.prelu(units, module.weight.detach())
    if getattr(module, "inplace", False):
        return lambda units: module.forward(units.clone())
    return module.forward
