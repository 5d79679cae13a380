"""What goes wrong in a host, and what would mend it: known because it was done on purpose.

Values follow the fault list of the benchmark. What is called *layer* is a linear layer, counted
from 0; -1 is the run as a whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, get_args

import numpy as np
import torch

from tamiyo.contracts import AdaptationType
from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.hosts import ACTIVATIONS, Activation, HostSpec, Optimizer, Wiring

__all__ = [
    "CURABLE",
    "CURES",
    "EARLY",
    "WHOLE_RUN",
    "Fault",
    "FaultKind",
    "cures",
    "draw_fault",
    "places",
    "strike",
]

WHOLE_RUN = -1


class FaultKind(StrEnum):
    """Kinds of faults; the first one is none."""

    HEALTHY = "healthy"
    RATE_HIGH = "rate_high"
    RATE_LOW = "rate_low"
    LAYER_RATE_HIGH = "layer_rate_high"
    FROZEN_LAYER = "frozen_layer"
    DYING_RELU = "dying_relu"
    ZERO_LAYER = "zero_layer"
    LARGE_LAYER = "large_layer"
    SATURATED = "saturated"
    EXPLODING_UPSTREAM = "exploding_upstream"
    BOTTLENECK = "bottleneck"
    NOT_A_NUMBER = "nan"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one host."""

    kind: FaultKind = FaultKind.HEALTHY
    layer: int = WHOLE_RUN
    step: int = 0
    """Optimiser steps after which it strikes; a bottleneck is there from the beginning."""
    strength: float = 1.0
    """What is multiplied, or the bias, see `strike`."""


_UNPROVEN = FaultKind.LAYER_RATE_HIGH
"""Networks of this size live with one layer's rate three hundred times too high about as well as
with what restoring costs them."""

CURES: Mapping[FaultKind, tuple[AdaptationType, ...]] = {
    FaultKind.HEALTHY: (),
    FaultKind.RATE_HIGH: (AdaptationType.RESTORE, AdaptationType.SCALE_LEARNING_RATE),
    FaultKind.RATE_LOW: (AdaptationType.SCALE_LEARNING_RATE,),
    FaultKind.LAYER_RATE_HIGH: (AdaptationType.RESTORE, AdaptationType.SCALE_LEARNING_RATE),
    FaultKind.FROZEN_LAYER: (AdaptationType.SCALE_LEARNING_RATE,),
    FaultKind.DYING_RELU: (AdaptationType.REINITIALIZE,),
    FaultKind.ZERO_LAYER: (AdaptationType.REINITIALIZE,),
    FaultKind.LARGE_LAYER: (AdaptationType.REINITIALIZE,),
    FaultKind.SATURATED: (AdaptationType.REINITIALIZE,),
    FaultKind.EXPLODING_UPSTREAM: (AdaptationType.RESTORE, AdaptationType.REINITIALIZE),
    FaultKind.BOTTLENECK: (AdaptationType.WIDEN,),
    FaultKind.NOT_A_NUMBER: (AdaptationType.RESTORE,),
}
"""What mends each fault, in order of preference among what is legal at the moment."""


def cures(kind: FaultKind, layer: int) -> list[tuple[int, AdaptationType]]:
    """What mends a fault and on which linear layer, or `WHOLE_RUN`; best first."""
    return [(WHOLE_RUN if cure is AdaptationType.RESTORE else layer, cure) for cure in CURES[kind]]


CURABLE = tuple(kind for kind, cures in CURES.items() if cures and kind is not _UNPROVEN)
"""Kinds whose cure gains accuracy over the twin in paired runs, significantly."""


class _Condition(NamedTuple):
    """Runs that a fault harms for good, so that its cure pays; others shrug it off."""

    low: float = 1.0
    high: float = 1.0
    """Range of the strength, drawn log-uniformly."""
    activations: tuple[Activation, ...] = tuple(ACTIVATIONS)
    wirings: tuple[Wiring, ...] = get_args(Wiring)
    adam: float = 1.0
    """Factor on the strength where the optimiser is Adam."""
    small: float = 1.0
    """Factor on the strength where weights start as small as PyTorch draws them."""
    classes: int = 2
    """Fewest classes of the data."""


_UNBOUNDED: tuple[Activation, ...] = ("relu", "leaky_relu", "elu")
_CONDITIONS: Mapping[FaultKind, _Condition] = {
    FaultKind.RATE_HIGH: _Condition(10.0, 100.0, _UNBOUNDED, adam=10.0),
    FaultKind.RATE_LOW: _Condition(1e-4, 1e-3),
    # Bounded activations shrug it off, or count as saturated.
    FaultKind.LAYER_RATE_HIGH: _Condition(300.0, 3000.0, ("relu",)),
    # With a sum around it, or any layer but the first, the others learn around it.
    FaultKind.FROZEN_LAYER: _Condition(1e-4, 1e-3, wirings=("plain", "skip")),
    FaultKind.DYING_RELU: _Condition(3.0, 30.0, ("relu",), ("plain",)),
    # All other activations have a slope at 0 and come back by themselves.
    FaultKind.ZERO_LAYER: _Condition(activations=("relu",), wirings=("plain",)),
    FaultKind.LARGE_LAYER: _Condition(8.0, 30.0, _UNBOUNDED, ("plain",), small=2.4),
    FaultKind.SATURATED: _Condition(40.0, 150.0, ("tanh", "sigmoid"), small=1.7),
    FaultKind.EXPLODING_UPSTREAM: _Condition(20.0, 60.0, _UNBOUNDED, small=2.4),
    # One unit can tell two classes apart.
    FaultKind.BOTTLENECK: _Condition(wirings=("plain",), classes=3),
}

_FROM_THE_START = (
    FaultKind.BOTTLENECK,
    FaultKind.ZERO_LAYER,
    FaultKind.LARGE_LAYER,
    FaultKind.FROZEN_LAYER,
)
"""Faults of the initialisation or of the architecture."""
_BOTH: Sequence[Optimizer] = get_args(Optimizer)
_EARLY: Mapping[FaultKind, Sequence[Optimizer]] = {
    FaultKind.RATE_LOW: _BOTH,
    # What Adam breaks by it, a smaller rate does not mend.
    FaultKind.RATE_HIGH: ("sgd",),
    FaultKind.DYING_RELU: _BOTH,
    FaultKind.SATURATED: _BOTH,
    FaultKind.EXPLODING_UPSTREAM: _BOTH,
}
"""Faults that may just as well be there from the first step on, with these optimisers."""
EARLY = 0.5
"""Share of them that are."""
NARROW = 4
"""Units without which one more layer of a single unit is no bottleneck."""


def places(kind: FaultKind, spec: HostSpec) -> list[int]:
    """Layers where a fault of this kind can strike the host and be mended."""
    condition = _CONDITIONS.get(kind, _Condition())
    if spec.wiring not in condition.wirings or spec.activation not in condition.activations:
        return []
    if spec.dataset.classes < condition.classes:
        return []
    every, own = list(range(spec.layers)), [i for i in range(spec.hidden) if not spec.summed(i)]
    special = {
        FaultKind.HEALTHY: [WHOLE_RUN],
        FaultKind.RATE_HIGH: [WHOLE_RUN],
        FaultKind.RATE_LOW: [WHOLE_RUN],
        FaultKind.FROZEN_LAYER: [0],
        FaultKind.NOT_A_NUMBER: every,
        FaultKind.LAYER_RATE_HIGH: every,
        FaultKind.EXPLODING_UPSTREAM: own[: len(own) // 2],
        FaultKind.BOTTLENECK: own if min(spec.widths) >= NARROW else [],
    }
    return special.get(kind, own)


def draw_fault(
    random: np.random.Generator, kind: FaultKind, spec: HostSpec, steps: tuple[int, int]
) -> Fault:
    """A fault of this kind that the host can have, at a random place and time.

    Args:
        random: Source of randomness.
        kind: The kind; `places` must not be empty.
        spec: The host.
        steps: Earliest and latest optimiser step.
    """
    layer = int(random.choice(places(kind, spec)))
    condition = _CONDITIONS.get(kind, _Condition())
    strength = float(np.exp(random.uniform(np.log(condition.low), np.log(condition.high))))
    strength *= condition.adam if spec.optimizer == "adam" else 1.0
    strength *= condition.small if spec.initialization == "default" else 1.0
    step = int(random.integers(*steps, endpoint=True))
    early = random.random() < EARLY and spec.optimizer in _EARLY.get(kind, ())
    return Fault(kind, layer, 0 if early or kind in _FROM_THE_START else step, strength)


def strike(cohort: Cohort, host: int, fault: Fault) -> None:
    """Let a fault happen to a host, between two steps."""
    if fault.kind is FaultKind.RATE_HIGH or fault.kind is FaultKind.RATE_LOW:
        cohort.learning_rate[cohort.host_of == host] *= fault.strength
        return
    if (effect := _EFFECTS.get(fault.kind)) is not None:
        effect(cohort, int(cohort.layout.row_of[host, fault.layer]), fault.strength)


def _scale_rate(cohort: Cohort, row: int, strength: float) -> None:
    cohort.learning_rate[row] *= strength


def _freeze(cohort: Cohort, row: int, strength: float) -> None:
    # Networks learn around a frozen layer of the usual size.
    cohort.weights.row(row).mul_(0.1)
    _scale_rate(cohort, row, strength)


def _close_units(cohort: Cohort, row: int, strength: float) -> None:
    cohort.weights.bias[row] = torch.where(cohort.units[row], -strength, 0.0)


def _scale_weights(cohort: Cohort, row: int, strength: float) -> None:
    cohort.weights.row(row).mul_(strength)


def _zero_weights(cohort: Cohort, row: int, _strength: float) -> None:
    cohort.weights.row(row).zero_()
    cohort.weights.bias[row].zero_()


def _spoil_weights(cohort: Cohort, row: int, _strength: float) -> None:
    cohort.weights.row(row)[0, 0] = torch.nan


_EFFECTS: Mapping[FaultKind, Callable[[Cohort, int, float], None]] = {
    FaultKind.LAYER_RATE_HIGH: _scale_rate,
    FaultKind.FROZEN_LAYER: _freeze,
    FaultKind.DYING_RELU: _close_units,
    FaultKind.ZERO_LAYER: _zero_weights,
    FaultKind.LARGE_LAYER: _scale_weights,
    FaultKind.SATURATED: _scale_weights,
    FaultKind.EXPLODING_UPSTREAM: _scale_weights,
    FaultKind.NOT_A_NUMBER: _spoil_weights,
}
