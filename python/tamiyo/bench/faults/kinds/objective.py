"""F7: a loss that does not measure what is asked for."""

from dataclasses import replace
from functools import partial

from torch import Tensor
from torch.nn import functional

from tamiyo.bench.faults.fault import FAULTS, Fault
from tamiyo.bench.faults.recipe import Recipe

__all__: list[str] = []


def _absolute_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Against labels as unit vectors, whose median is 0 in every component."""
    return functional.l1_loss(outputs, functional.one_hot(labels, outputs.shape[1]).to(outputs))


def _regression(outputs: Tensor, labels: Tensor) -> Tensor:
    """Of the number of the class, as if classes had an order and one output."""
    return functional.mse_loss(outputs.mean(1), labels.to(outputs))


def _with_loss(recipe: Recipe, *, name: str) -> Recipe:
    return replace(recipe, loss=_LOSSES[name])


_LOSSES = {"absolute error": _absolute_error, "regression": _regression}
for _name in _LOSSES:
    FAULTS.add(Fault("F7", _name, partial(_with_loss, name=_name)))
