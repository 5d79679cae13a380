"""Which parameters an optimiser trains in which group, by their names in the model."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from tamiyo.host.structure import StructureError

__all__ = ["GroupNames", "arrange", "group_names", "parameter_names"]

GroupNames: TypeAlias = list[list[str | None]]
"""Per group the names of its parameters in order; `None` for one that is not the model's."""


def parameter_names(model: nn.Module) -> dict[int, str]:
    """Names by the `id` of each parameter."""
    return {id(parameter): name for name, parameter in model.named_parameters()}


def group_names(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> GroupNames:
    """What the optimiser trains.

    Args:
        optimizer: The optimiser.
        names: Of `parameter_names`.
    """
    return [[names.get(id(p)) for p in group["params"]] for group in optimizer.param_groups]


def arrange(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    now: GroupNames,
    saved: GroupNames,
    original: Collection[str],
) -> None:
    """Let an optimiser train what a saved one trained, in the same groups and the same order.

    Args:
        optimizer: Trains the model, maybe as it was before it was rebuilt.
        model: The rebuilt model.
        now: What the optimiser trains.
        saved: What it is to train.
        original: Names of the parameters of the original model, which may not change groups.

    Raises:
        StructureError: the optimisers were built differently, or this one's state was loaded
            already; it was not changed.
    """
    _check(now, saved, original)
    parameters = dict(model.named_parameters())
    arranged = [
        _arranged(group["params"], names, wanted, parameters)
        for group, names, wanted in zip(optimizer.param_groups, now, saved, strict=True)
    ]
    groups = list(zip(optimizer.param_groups, arranged, saved, strict=True))
    if all(list(map(id, group["params"])) == list(map(id, new)) for group, new, _ in groups):
        return
    if optimizer.state:
        raise StructureError("the optimiser has a state already: load it after Tamiyo's")
    for group, new, names in groups:
        if "param_names" in group:
            own = dict(zip(map(id, group["params"]), group["param_names"], strict=True))
            group["param_names"][:] = [
                own[id(parameter)] if name is None else name
                for name, parameter in zip(names, new, strict=True)
            ]
        group["params"][:] = new


def _check(now: GroupNames, saved: GroupNames, original: Collection[str]) -> None:
    if len(now) != len(saved):
        raise StructureError(
            f"the optimiser has {len(now)} parameter groups, the saved one had {len(saved)}"
        )
    for number, (names, wanted) in enumerate(zip(now, saved, strict=True)):
        differing = {name for name in original if (name in names) != (name in wanted)}
        if differing:
            raise StructureError(f"group {number} of the optimiser differs in {min(differing)!r}")
        if names.count(None) != wanted.count(None):
            raise StructureError(f"group {number} of the optimiser has other foreign parameters")


def _arranged(
    present: Sequence[nn.Parameter],
    names: Sequence[str | None],
    wanted: Sequence[str | None],
    parameters: Mapping[str, nn.Parameter],
) -> list[Any]:
    foreign = iter([p for p, name in zip(present, names, strict=True) if name is None])
    return [next(foreign) if name is None else parameters[name] for name in wanted]
