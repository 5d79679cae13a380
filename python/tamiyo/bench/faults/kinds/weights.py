"""F4, F5 and F9: first weights that explode, die or are all alike."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from tamiyo.bench.faults.fault import FAULTS, Cure, Fault, Place, hidden_layers, middle_layer
from tamiyo.bench.faults.recipe import Recipe
from tamiyo.contracts import AdaptationType

__all__: list[str] = []

_REDRAWN = Cure(AdaptationType.REINITIALIZE, parameters={"scope": "all"})
_REDRAWN_ALL = Cure(
    AdaptationType.REINITIALIZE,
    parameters={"scope": "all"},
    # What explodes in one layer ruins the others within a few steps.
    then=(Cure(AdaptationType.REINITIALIZE, Place.HIDDEN, {"scope": "all"}),),
)
_LEAKY = Cure(AdaptationType.CHANGE_ACTIVATION, parameters={"to": "leaky_relu"})
_NORMALISED = Cure(AdaptationType.INSERT_NORMALIZATION)


def _started(
    recipe: Recipe,
    *,
    where: Callable[[nn.Module], Sequence[str]],
    change: Callable[[nn.Module], None],
) -> Recipe:
    """With the first weights of some layers changed, after they were drawn as usual."""

    def initialize(model: nn.Module) -> None:
        for name in where(model):
            change(model.get_submodule(name))

    return replace(recipe, initialize=initialize)


def _scaled(layer: nn.Module, *, factor: float) -> None:
    layer.get_parameter("weight").mul_(factor)


def _closed(layer: nn.Module, *, bias: float) -> None:
    layer.get_parameter("bias").fill_(bias)


def _constant(layer: nn.Module, *, value: float) -> None:
    layer.get_parameter("weight").fill_(value)
    layer.get_parameter("bias").fill_(value)


def _dying(recipe: Recipe, *, bias: float) -> Recipe:
    """Only rectified units die."""
    rectified = replace(recipe, network=replace(recipe.network, activation="relu"))
    return _started(rectified, where=middle_layer, change=partial(_closed, bias=bias))


for _factor in (5.0, 10.0, 20.0):
    _spoil = partial(_started, where=middle_layer, change=partial(_scaled, factor=_factor))
    FAULTS.add(Fault("F4", f"std × {_factor:g}", _spoil, middle_layer, (_REDRAWN_ALL, _NORMALISED)))
for _bias in (-1.0, -3.0, -10.0):
    _spoil = partial(_dying, bias=_bias)
    FAULTS.add(Fault("F5", f"bias {_bias:g}", _spoil, middle_layer, (_REDRAWN, _LEAKY)))
for _value in (0.0, 0.1):
    _spoil = partial(_started, where=hidden_layers, change=partial(_constant, value=_value))
    FAULTS.add(Fault("F9", f"all {_value:g}", _spoil, hidden_layers, (_REDRAWN,)))
_spoil = partial(_started, where=middle_layer, change=partial(_constant, value=0.0))
FAULTS.add(Fault("F9", "one layer 0", _spoil, middle_layer, (_REDRAWN,)))
