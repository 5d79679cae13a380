"""F1, F2 and F11: the learning rate, the optimiser and the batch size."""

from dataclasses import replace
from functools import partial
from typing import Any

from tamiyo.bench.faults.fault import FAULTS, Applies, Cure, Fault, Place
from tamiyo.bench.faults.recipe import Recipe
from tamiyo.contracts import AdaptationType

__all__: list[str] = []


def _scale(factor: float, *then: Cure) -> Cure:
    kind = AdaptationType.SCALE_LEARNING_RATE
    return Cure(kind, place=Place.RUN, parameters={"factor": factor}, then=then)


_REDRAWN = Cure(AdaptationType.REINITIALIZE, Place.HIDDEN, {"scope": "all"})
"""For layers that large steps have ruined before."""


def _multiply(recipe: Recipe, *, factor: float) -> Recipe:
    return replace(recipe, learning_rate=factor * recipe.learning_rate)


def _change(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, **changes)


def _trained_by(optimizer: str) -> Applies:
    return lambda architecture, _source: architecture.optimizer == optimizer


for _value, _factor, _cure in (("× 10", 10.0, 0.1), ("× 100", 100.0, 0.01)):
    _spoil = partial(_multiply, factor=_factor)
    _cures = (_scale(_cure, _REDRAWN),)
    FAULTS.add(Fault("F1", f"rate {_value}", _spoil, cures=_cures))
# AutoTrainer's faulty models have rates from 1 to 10.
FAULTS.add(
    Fault(
        "F1",
        "rate 3",
        partial(_change, learning_rate=3.0),
        cures=(_scale(1e-2, _REDRAWN),),
    )
)
for _value, _factor in (("× 1e-3", 1e-3), ("× 1e-4", 1e-4)):
    _spoil = partial(_multiply, factor=_factor)
    # A thousand at once is the most that there is.
    _cures = (_scale(1e3, *((_scale(1e-3 / _factor),) if _factor < 1e-3 else ())),)
    FAULTS.add(Fault("F2", f"rate {_value}", _spoil, cures=_cures))
FAULTS.add(
    Fault(
        "F11",
        "SGD at the rate of Adam",
        partial(_change, optimizer="sgd", momentum=0.0),
        cures=(_scale(10.0),),
        applies=_trained_by("adam"),
    )
)
FAULTS.add(
    Fault(
        "F11",
        "Adam at the rate of SGD",
        partial(_change, optimizer="adam"),
        cures=(_scale(0.1),),
        applies=_trained_by("sgd"),
    )
)
FAULTS.add(
    Fault(
        "F11",
        "momentum .999",
        partial(_change, momentum=0.999),
        cures=(_scale(1e-2, _REDRAWN),),
        applies=_trained_by("sgd"),
    )
)
FAULTS.add(Fault("F11", "batch of 1", partial(_change, batch_size=1), cures=(_scale(0.1),)))
