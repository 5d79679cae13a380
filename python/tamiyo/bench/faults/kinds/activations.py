"""F3 and F6: activations that saturate in a deep stack, or follow the last layer."""

from dataclasses import replace
from functools import partial

from torch import nn

from tamiyo.bench.faults.architectures import weighted_layers
from tamiyo.bench.faults.fault import FAULTS, Cure, Fault, hidden_layers, in_architectures
from tamiyo.bench.faults.recipe import Recipe
from tamiyo.contracts import AdaptationType

__all__: list[str] = []

_UNBOUNDED = Cure(AdaptationType.CHANGE_ACTIVATION, parameters={"to": "leaky_relu"})
_NORMALISED = Cure(AdaptationType.INSERT_NORMALIZATION)


def _hidden(recipe: Recipe, *, activation: str) -> Recipe:
    return replace(recipe, network=replace(recipe.network, activation=activation))


def _output(recipe: Recipe, *, activation: str) -> Recipe:
    return replace(recipe, network=replace(recipe.network, output=activation))


def _last_layer(model: nn.Module) -> list[str]:
    return weighted_layers(model)[-1:]


def _small_weights(recipe: Recipe, *, activation: str) -> Recipe:
    """With torch's own first weights, so that a bounded activation shrinks what it passes on."""

    def initialize(model: nn.Module) -> None:
        for name in weighted_layers(model):
            model.get_submodule(name).reset_parameters()  # type: ignore[operator]

    return replace(_hidden(recipe, activation=activation), initialize=initialize)


_DEEP = in_architectures("mlp_10x5", "mlp_20")
for _activation, _change in (("sigmoid", _hidden), ("tanh", _small_weights)):
    _spoil = partial(_change, activation=_activation)
    FAULTS.add(Fault("F3", _activation, _spoil, hidden_layers, (_UNBOUNDED, _NORMALISED), _DEEP))
for _activation, _cures in (
    ("relu", (_UNBOUNDED,)),
    ("sigmoid", (_UNBOUNDED,)),
    # Nothing that can be done to a layer takes a softmax away.
    ("softmax", ()),
):
    _spoil = partial(_output, activation=_activation)
    FAULTS.add(Fault("F6", _activation, _spoil, _last_layer, _cures))
