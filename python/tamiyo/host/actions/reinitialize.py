"""Recycle dormant units: fresh incoming weights, zero outgoing weights, a blank optimiser state."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions.base import (
    Action,
    Choice,
    Context,
    Number,
    ParameterRule,
    Refusal,
    Undo,
)
from tamiyo.host.layers import Layers
from tamiyo.host.readers import Reader, UnitReaders, unit_makers, unit_readers, units_made

__all__ = ["Reinitialize", "dormant_units"]


class Reinitialize(Action):
    """Recycles units as ReDo does (Sokar et al., ICML 2023, arXiv 2302.12902).

    Recycled units get incoming weights from their layer's own `reset_parameters`, bias 0 and
    blank moments in the optimiser. All weights that read them become 0, so that the model's
    function changes only by what the units contributed, which for dormant ones is next to nothing.
    (A layer normalisation on the way mixes units, so there it changes a little more.)

    Where *all* inputs of a reader would become zero and an activation follows it, the reader's
    weights are drawn afresh instead: rectified units without any input could never be trained
    again, and a layer that is dormant as a whole passed nothing on that could be preserved.
    """

    type = AdaptationType.REINITIALIZE
    rules: ClassVar[Mapping[str, ParameterRule]] = {
        "threshold": Number(0, 1, default=0.025),
        "scope": Choice(("dormant", "all", "as_needed"), default="dormant"),
        "too_large": Number(1, 1e6, default=1e6),
    }
    """`as_needed` takes all units of a layer that has no dormant one, or whose root-mean-square
    weight times the root of its number of inputs is `too_large`; of others the dormant ones."""

    def applies_to(self, layers: Layers, layer_id: int) -> bool:
        """Whether it has units and everything that reads them is known."""
        return unit_readers(layers, layer_id) is not None and bool(layers.parameters(layer_id))

    def apply(
        self, context: Context, target: Sequence[int], parameters: Mapping[str, float | str]
    ) -> Undo:
        """See `Action.apply`."""
        chosen = {layer_id: _chosen(context, layer_id, parameters) for layer_id in target}
        chosen = {layer_id: units for layer_id, units in chosen.items() if units.any()}
        if not chosen:
            raise Refusal("no unit of the target is dormant")
        recycling = _Recycling(context, chosen)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(context.seed)
            recycling.run()
        return recycling.undo


def dormant_units(activity: torch.Tensor, threshold: float) -> torch.Tensor:
    """Units whose share of the layer's mean activity is at most `threshold` (the ReDo score).

    Args:
        activity: Mean absolute activation per unit, shape [U].
        threshold: Tau in the paper.

    Returns:
        Mask of shape [U]; all units of a layer that is silent as a whole.
    """
    return activity <= threshold * activity.mean()


def _chosen(context: Context, layer_id: int, parameters: Mapping[str, float | str]) -> torch.Tensor:
    """Mask of the units that are to be recycled."""
    module, scope = context.layers.module(layer_id), parameters["scope"]
    everything = torch.ones(units_made(module) or 0, dtype=torch.bool)
    if scope == "all":
        return everything
    dormant = _dormant(context, layer_id, float(parameters["threshold"]))
    if scope == "dormant":
        return dormant
    whole = not dormant.any() or _weight_scale(module) > float(parameters["too_large"])
    return everything if whole else dormant


def _weight_scale(module: nn.Module) -> float:
    """Root-mean-square weight times the root of the number of inputs; 1.4 by He's scheme."""
    weights = [(module.get_parameter(maker.name), maker.axis) for maker in unit_makers(module)]
    # Of I inputs and U units, the norm over sqrt(I U) is the root mean square, and I cancels.
    scales = [
        float(weight.detach().norm()) / weight.shape[axis] ** 0.5
        for weight, axis in weights
        if weight.dim() > 1
    ]
    return max(scales, default=0.0)


def _dormant(context: Context, layer_id: int, threshold: float) -> torch.Tensor:
    activity = context.activity.get(layer_id)
    if activity is None or len(activity) != units_made(context.layers.module(layer_id)):
        raise Refusal(f"the activity of the units of layer {layer_id} was not measured yet")
    if not torch.isfinite(activity).all():
        raise Refusal(f"activations of layer {layer_id} are not finite")
    return dormant_units(activity, threshold).cpu()


class _Recycling:
    """One application: what is changed, and the values from before."""

    def __init__(self, context: Context, chosen: Mapping[int, torch.Tensor]) -> None:
        self._layers = context.layers
        self._state = context.run.optimizer.state
        self._chosen = chosen
        self._before: dict[torch.Tensor, torch.Tensor] = {}
        self._found: dict[int, UnitReaders] = {}
        for layer_id in chosen:
            found = unit_readers(self._layers, layer_id)
            if found is None:
                raise Refusal(f"what reads the units of layer {layer_id} is not known")
            self._found[layer_id] = found

    def run(self) -> None:
        for layer_id, units in self._chosen.items():
            self._refresh(layer_id, units)
        for layer_id, found in self._found.items():
            self._disconnect(found, self._chosen[layer_id])

    def undo(self) -> None:
        with torch.no_grad():
            for tensor, value in self._before.items():
                tensor.copy_(value)

    def _refresh(self, layer_id: int, units: torch.Tensor) -> None:
        module = self._layers.module(layer_id)
        drawn = _drawn(module)
        for maker in unit_makers(module):
            parameter = module.get_parameter(maker.name)
            fresh = drawn[maker.name] if parameter.dim() > 1 else None
            self._write(parameter, maker.axis, maker.slices(units), fresh)

    def _disconnect(self, found: UnitReaders, units: torch.Tensor) -> None:
        for layer_id in found.normalizations:
            self._reset_normalization(self._layers.module(layer_id), units)
        for reader in found.readers:
            module = self._layers.module(reader.layer_id)
            inputs = reader.inputs(units)
            silent = bool(inputs.all()) and self._rectified(reader)
            # Units that are recycled themselves keep their fresh inputs: nothing reads them, and
            # with zeros on both sides no gradient would ever reach them.
            rows = None
            if (recycled := self._chosen.get(reader.layer_id)) is not None:
                makers = {maker.name: maker for maker in unit_makers(module)}
                rows = ~makers[reader.name].slices(recycled) if reader.name in makers else None
            fresh = _drawn(module)[reader.name] if silent else None
            weight = module.get_parameter(reader.name)
            self._write(weight, reader.axis, inputs, fresh, rows=rows)

    def _rectified(self, reader: Reader) -> bool:
        _, site = self._layers.activated(reader.layer_id)
        return site is not None

    def _reset_normalization(self, module: nn.Module, units: torch.Tensor) -> None:
        for name, value in (("weight", 1.0), ("bias", 0.0)):
            tensor = getattr(module, name, None)
            if isinstance(tensor, nn.Parameter) and tensor.shape == units.shape:
                self._write(tensor, 0, units, torch.full_like(tensor, value, device="cpu"))
        for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
            tensor = getattr(module, name, None)
            if isinstance(tensor, torch.Tensor) and tensor.shape == units.shape:
                self._remember(tensor)
                tensor[units.to(tensor.device)] = value

    def _write(
        self,
        parameter: nn.Parameter,
        axis: int,
        index: torch.Tensor,
        values: torch.Tensor | None,
        rows: torch.Tensor | None = None,
    ) -> None:
        """Overwrite slices of a parameter (zeros without `values`) and blank their moments.

        Args:
            parameter: What to write.
            axis: Axis along which `index` selects.
            index: Mask of slices.
            values: A tensor like the parameter to take them from.
            rows: Mask over the other axis of (0, 1); only there.
        """
        mask = _mask(parameter, axis, index)
        if rows is not None:
            mask = mask & _mask(parameter, 1 - axis, rows)
        self._remember(parameter)
        fresh = torch.zeros_like(parameter) if values is None else values.to(parameter)
        parameter.copy_(torch.where(mask, fresh, parameter))
        for moment in self._moments(parameter):
            self._remember(moment)
            moment.masked_fill_(mask.to(moment.device), 0)

    def _moments(self, parameter: nn.Parameter) -> list[torch.Tensor]:
        state: Mapping[str, Any] = self._state.get(parameter, {})
        return [
            value
            for value in state.values()
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.dim()
        ]

    def _remember(self, tensor: torch.Tensor) -> None:
        if tensor not in self._before:
            self._before[tensor] = tensor.detach().clone()


def _drawn(module: nn.Module) -> Mapping[str, torch.Tensor]:
    """New parameters by the layer's own scheme, on the CPU, whatever device the layer is on."""
    fresh: Any = copy.deepcopy(module).cpu()
    fresh.reset_parameters()
    return {name: parameter.detach() for name, parameter in fresh.named_parameters()}


def _mask(parameter: torch.Tensor, axis: int, index: torch.Tensor) -> torch.Tensor:
    shape = [1] * parameter.dim()
    shape[axis] = -1
    return index.to(parameter.device).view(shape).expand(parameter.shape)
