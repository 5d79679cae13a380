"""Multiply the learning rate of the whole run or of some layers."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import Action, Context, Number, ParameterRule, Standing, Undo
from tamiyo.host.layers import Layers
from tamiyo.host.training import TrainingRun

__all__ = ["ScaleLearningRate", "scale_groups"]

_GROUP_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
_SCHEDULER_RATES = ("base_lrs", "min_lrs", "max_lrs", "_last_lr")
"""Lists with a rate for each group."""


class ScaleLearningRate(Action):
    """Scales the rate itself for the whole model, and the finished update for single layers.

    Splitting a parameter group to give a layer its own rate would break schedulers that know
    the number of groups and the user's checkpoints, so a layer's update is shortened or
    stretched right after the optimiser's step instead: `w <- w_old + factor * (w - w_old)`.
    """

    type = AdaptationType.SCALE_LEARNING_RATE
    rules: ClassVar[Mapping[str, ParameterRule]] = {"factor": Number(1e-3, 1e3)}
    whole_model = True

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether the layer owns something to train."""
        return any(parameter.requires_grad for parameter in layers.parameters(layer_id))

    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """See `Action.apply`."""
        factor = float(parameters["factor"])
        if not target:
            return scale_groups(context.run, factor)
        standing = Standing(self.type.value, list(target), dict(parameters))
        return _scale_updates(context, target, factor, standing)


def scale_groups(run: TrainingRun, factor: float) -> Undo:
    """Scale the rates of all parameter groups, and those from which a scheduler computes them.

    Recursive schedulers go on from the group's rate, closed-form ones from their base rates, and
    both move towards bounds; with all of these scaled, so is the whole rest of any schedule.
    """
    previous: list[tuple[Any, Any, Any]] = []

    def scale(holder: Any, key: Any) -> None:
        value = holder[key]
        previous.append((holder, key, value))
        # A tensor is replaced, not written: the old one is what undo puts back.
        holder[key] = value * factor

    for group in run.optimizer.param_groups:
        for key in _GROUP_RATES:
            if isinstance(group.get(key), float | int | torch.Tensor):
                scale(group, key)
    lists: dict[int, list[Any]] = {}
    for scheduler in run.schedulers():
        if isinstance(getattr(scheduler, "eta_min", None), float | int):
            scale(vars(scheduler), "eta_min")
        rates = (getattr(scheduler, name, None) for name in _SCHEDULER_RATES)
        # Schedulers inside others share some of their lists with them.
        lists |= {id(found): found for found in rates if isinstance(found, list)}
    for found in lists.values():
        for index in range(len(found)):
            scale(found, index)

    def undo() -> None:
        for holder, key, value in reversed(previous):
            holder[key] = value

    return undo


def _scale_updates(
    context: Context, target: Sequence[int], factor: float, standing: Standing
) -> Undo:
    current: list[torch.Tensor] = []
    before: list[torch.Tensor] = []

    def remember(*_: Any) -> None:
        # Looked up at each step, because another adaptation may replace parameters.
        owned = (p for layer_id in target for p in context.layers.parameters(layer_id))
        current[:] = [parameter.detach() for parameter in owned]
        if [tensor.shape for tensor in before] != [tensor.shape for tensor in current]:
            before[:] = [torch.empty_like(tensor) for tensor in current]
        torch._foreach_copy_(before, current)

    def rescale(*_: Any) -> None:
        if not before:
            return
        change = torch._foreach_sub(current, before)
        torch._foreach_mul_(change, factor)
        torch._foreach_copy_(current, torch._foreach_add(before, change))

    optimizer = context.run.optimizer
    return context.install(
        (optimizer.register_step_pre_hook, remember),
        (optimizer.register_step_post_hook, rescale),
        standing=standing,
    )
