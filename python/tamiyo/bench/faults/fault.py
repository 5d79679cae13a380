"""What a fault is: what it does to a run, which layers it is in, and what would mend it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import log
from types import MappingProxyType
from typing import TypeAlias

from torch import nn

from tamiyo.bench.faults.architectures import Architecture, weighted_layers
from tamiyo.bench.faults.data import DataSource
from tamiyo.bench.faults.recipe import Recipe
from tamiyo.bench.faults.registry import Registry
from tamiyo.contracts import AdaptationType
from tamiyo.host.modules import activation_name

__all__ = [
    "FAULTS",
    "HEALTHY",
    "Applies",
    "Cure",
    "Fault",
    "Place",
    "Told",
    "hidden_layers",
    "in_architectures",
    "middle_layer",
]

HEALTHY = "F0"
"""Stands for no fault."""
Applies: TypeAlias = Callable[[Architecture, DataSource], bool]
"""Which architectures and data can have a fault."""


class Place(StrEnum):
    """Where a cure belongs."""

    CULPRITS = "culprits"
    HIDDEN = "hidden"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Cure:
    """One adaptation that mends a fault.

    Attributes:
        adaptation: What is done.
        place: To the culprits, to all hidden layers, or to the run as a whole.
        parameters: The dose; where there is none, that which policies give too.
        then: What has to follow where that alone was not enough.
    """

    adaptation: AdaptationType
    place: Place = Place.CULPRITS
    parameters: Mapping[str, float | str] = field(default_factory=lambda: MappingProxyType({}))
    then: tuple["Cure", ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a fault in one model by construction; only an oracle is told.

    Attributes:
        onset: Optimiser steps that are done before it strikes.
        culprits: Names of the faulty layers; none where it is the run as a whole.
        places: The same and the activations that follow them: what may be treated for them.
        hidden: Names of all layers but the last.
        chance: Loss of a network that has learned nothing.
        cures: What mends it, best first; none where nothing done in place does.
    """

    onset: int = 0
    culprits: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    chance: float = 0.0
    cures: tuple[Cure, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """One value of one kind of fault.

    Attributes:
        kind: `F1` to `F13`, or whatever a plugin says; figures are by kind.
        value: Its strength or variant.
        spoil: The faulty recipe, from a healthy one.
        culprits: Names of the faulty layers of a model that was built by that recipe.
        cures: What mends it, best first; none where nothing done in place does.
        applies: Which architectures and data can have it.
    """

    kind: str
    value: str
    spoil: Callable[[Recipe], Recipe]
    culprits: Callable[[nn.Module], Sequence[str]] = lambda _model: ()
    cures: tuple[Cure, ...] = ()
    applies: Applies = lambda _architecture, _source: True

    @property
    def name(self) -> str:
        """By which it is found."""
        return f"{self.kind}:{self.value}"

    def told(self, recipe: Recipe, model: nn.Module) -> Told:
        """What is known of it in a model that was built by its recipe."""
        onset = 0 if recipe.strike is None else recipe.strike.step
        culprits = tuple(self.culprits(model))
        return Told(
            onset=onset,
            culprits=culprits,
            places=(*culprits, *_activations_after(model, culprits)),
            hidden=tuple(hidden_layers(model)),
            chance=log(recipe.network.classes),
            cures=self.cures,
        )


FAULTS: Registry[Fault] = Registry("fault")


def hidden_layers(model: nn.Module) -> list[str]:
    """Names of the linear and convolutional layers before the last one, in order of use."""
    return weighted_layers(model)[:-1]


def middle_layer(model: nn.Module) -> list[str]:
    """Name of the hidden layer in the middle, where faults of a single layer are put."""
    hidden = hidden_layers(model)
    return [hidden[len(hidden) // 2]]


def in_architectures(*names: str) -> Applies:
    """Only in architectures of these names, whatever the data."""
    return lambda architecture, _source: architecture.name in names


def _activations_after(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Names of the activation modules that stand right behind these layers."""
    leaves = [name for name, module in model.named_modules() if not any(module.children())]
    following = [leaves[leaves.index(name) + 1 :][:1] for name in names]
    return [
        after
        for found in following
        for after in found
        if activation_name(model.get_submodule(after)) is not None
    ]
