"""GradMax as the package `gromo` does it, where that is installed; Tamiyo does not depend on it."""

import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from tamiyo.bench.growth import Problem

__all__ = ["gromo_missing", "grow_with_gromo"]


def gromo_missing() -> str:
    """Why `gromo` cannot be used; empty if it can."""
    try:
        importlib.import_module("gromo.modules.linear_growing_module")
    except ImportError as error:
        return str(error)
    return ""


def grow_with_gromo(
    problem: "Problem", model: nn.Module, rate: float
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Give a student one more unit.

    Args:
        problem: The problem.
        model: The student, a sequence of linear, activation, linear without biases.
        rate: Learning rate of the new optimiser; `gromo` leaves optimisers to its user.

    Returns:
        A model of gromo's own layers and an optimiser for it.
    """
    linear: Any = importlib.import_module("gromo.modules.linear_growing_module")
    weights = [parameter.detach() for parameter in model.parameters()]
    options = {"use_bias": False, "device": torch.device("cpu")}
    before: Any = None
    layers = []
    for name, weight in zip(("first", "last"), weights, strict=True):
        after = nn.Identity() if before is not None else problem.activation()
        layer = linear.LinearGrowingModule(
            *(weight.shape[1], weight.shape[0]),
            post_layer_function=after,
            previous_module=before,
            name=name,
            **options,
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
        layers.append(layer)
        before = layer
    grown = nn.Sequential(*layers)
    last = layers[1]
    last.init_computation()
    problem.loss(grown).backward()
    last.update_computation()
    last.compute_optimal_updates(
        maximum_added_neurons=1,
        compute_delta=False,
        use_covariance=False,
        alpha_zero=True,
        use_projection=False,
        ignore_singular_values=True,
    )
    last.normalize_optimal_updates(normalization_type="gradmax_normalization")
    last.set_scaling_factor(1.0)
    last.apply_change()
    last.delete_update()
    last.reset_computation()
    optimizer = torch.optim.SGD([layer.weight for layer in layers], rate)
    return grown, optimizer
