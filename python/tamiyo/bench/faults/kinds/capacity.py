"""F13: too few units, everywhere or in one layer; the cure is to grow there."""

from dataclasses import replace

from torch import nn

from tamiyo.bench.faults.fault import FAULTS, Cure, Fault, hidden_layers
from tamiyo.bench.faults.recipe import Recipe
from tamiyo.contracts import AdaptationType

__all__: list[str] = []

NARROW = 2
"""Units of a bottleneck."""


def _bottleneck(recipe: Recipe) -> Recipe:
    """The hidden layer in the middle has two units."""
    widths = list(recipe.network.widths)
    widths[len(widths) // 2] = NARROW
    return replace(recipe, network=replace(recipe.network, widths=tuple(widths)))


def _quarter(recipe: Recipe) -> Recipe:
    widths = tuple(max(1, width // 4) for width in recipe.network.widths)
    return replace(recipe, network=replace(recipe.network, widths=widths))


def _narrowest(model: nn.Module) -> list[str]:
    widths = {
        name: len(model.get_submodule(name).get_parameter("weight"))
        for name in hidden_layers(model)
    }
    return [min(widths, key=widths.__getitem__)]


_WIDEN = AdaptationType.WIDEN
FAULTS.add(
    Fault("F13", "bottleneck", _bottleneck, _narrowest, (Cure(_WIDEN, parameters={"units": 32}),))
)
FAULTS.add(
    Fault("F13", "width / 4", _quarter, hidden_layers, (Cure(_WIDEN, parameters={"units": 16}),))
)
