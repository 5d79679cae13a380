"""Measures every layer during one training step at a time, within a budget of the run's time.

Hooks exist only during a sampled step. They copy a few rows of each layer's output; the optimiser's
step hooks add the norms of gradients and weights and the size of the update. All statistics leave
the device in one transfer.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tamiyo.contracts import Flag
from tamiyo.host.budget import TimeBudget
from tamiyo.host.compiled import EagerSteps
from tamiyo.host.faults import Faults
from tamiyo.host.health import health_scores
from tamiyo.host.layers import Layers
from tamiyo.host.modules import activation_name
from tamiyo.host.readback import Readback
from tamiyo.host.sample import Sample
from tamiyo.host.statistics import (
    MAX_UNITS,
    apply_activation,
    dead_ratio,
    sample_rows,
    saturated_ratio,
    spread_units,
    unit_moments,
)
from tamiyo.host.training import TrainingRun, gradient_scale
from tamiyo.host.updates import UpdateMeter

__all__ = ["LayerProbe"]

WIDEST = 4096
"""Layers with more units are sampled in that many of them, and have no per-unit activity."""
PART = "probe"


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to read one layer, worked out once."""

    layer_id: int
    channels_second: bool
    reader: int
    """The layer whose output the activation sees: this one, or the normalisation behind it."""
    site: int | None
    """The activation module whose output shows the units, if there is one."""
    activation: str | None


@dataclass(slots=True)
class _Step:
    """What the hooks of one sampled step have gathered."""

    number: int
    rows: dict[int, torch.Tensor] = field(default_factory=dict)
    watches: dict[int, "_Stopwatch"] = field(default_factory=dict)
    gradient_norm: torch.Tensor | None = None
    weight_norm: torch.Tensor | None = None
    update_ratio: torch.Tensor | None = None
    own_time: float = 0.0

    def seen(self, layers: int) -> npt.NDArray[np.bool_]:
        """Mask of the layers whose output was stashed, shape [layers]."""
        mask = np.zeros(layers, np.bool_)
        mask[list(self.rows)] = True
        return mask


class LayerProbe:
    """Samples a run: `arm()` before a step, `collect()` after it.

    Args:
        run: The run; its model must be the one that `layers` describes.
        layers: The layers to measure.
        budget: Time that measuring may take; by default 1 % of the run's.
        every: Measure every so many steps, whatever it costs, instead.
        faults: Where errors of the hooks go.
        eager: Lets hooks be called where the model is compiled.
    """

    def __init__(
        self,
        run: TrainingRun,
        layers: Layers,
        *,
        budget: TimeBudget | None = None,
        every: int | None = None,
        faults: Faults | None = None,
        eager: EagerSteps | None = None,
    ) -> None:
        self.layers = layers
        self.budget = budget if budget is not None else TimeBudget(0.01)
        self.every = every
        self.faults = faults if faults is not None else Faults()
        self.samples = 0
        self.hook_time = 0.0
        """Seconds spent inside the training step rather than in `arm` and `collect`."""
        self.activity: dict[int, torch.Tensor] = {}
        """Mean absolute activation of all units of a layer at the last sample, shape [units]."""
        self._run = run
        self._eager = eager if eager is not None else EagerSteps(run.model)
        self._handles: list[RemovableHandle] = []
        self._step: _Step | None = None
        self._pending: tuple[_Step, Readback] | None = None
        self.refresh()
        self._cuda = any(p.is_cuda for p in layers.model.parameters())

    @property
    def armed(self) -> bool:
        """Whether the step that runs now is sampled."""
        return self._step is not None

    @property
    def pending(self) -> bool:
        """Whether a sample's statistics are on their way from the device."""
        return self._pending is not None

    def refresh(self) -> None:
        """Look at the layers anew, after an adaptation has replaced modules or parameters."""
        layers = self.layers
        self._plans = [
            _plan(layers, layer_id)
            for layer_id in self._ids()
            if layers.names[layer_id] in layers.ownership.leaves
        ]
        self._meter = UpdateMeter(layers, self._run.optimizer)
        self._sizes = np.array([sum(p.numel() for p in layers.parameters(i)) for i in self._ids()])

    def due(self, step: int, *, urgent: bool = False) -> bool:
        """Whether to sample the step after `step` steps."""
        if self.armed or self.pending or not self._eager.settled or PART in self.faults.disabled:
            return False
        if self.every is not None:
            return step % self.every == 0
        return self.budget.allows(urgent=urgent)

    def arm(self, step: int) -> None:
        """Measure the step that begins now; it will be step number `step`."""
        started = time.perf_counter()
        self._step = gathered = _Step(step)
        shield = self.faults.shield
        for plan in self._plans:
            # Looked up each time: a seed exchanges its layer's module as it grows.
            module = self.layers.module(plan.layer_id)
            self._handles += [
                module.register_forward_pre_hook(shield(PART, self._entering(plan))),
                module.register_forward_hook(shield(PART, self._leaving(plan))),
            ]
        optimizer = self._run.optimizer
        self._handles += [
            optimizer.register_step_pre_hook(shield(PART, self._before)),
            optimizer.register_step_post_hook(shield(PART, self._after)),
        ]
        self._eager.sample()
        gathered.own_time += time.perf_counter() - started

    def disarm(self) -> None:
        """Remove all hooks and drop an unfinished sample."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._eager.end()
        if self._step is not None:
            self.budget.charge(self._step.own_time)
        self._step = None

    def collect(self) -> Sample | None:
        """The sample of an earlier step, as soon as its statistics have left the device."""
        if self._step is not None:
            started = time.perf_counter()
            gathered, self._step = self._step, None
            if not self._eager.just_compiled:
                gathered.own_time += self._eager.extra_time
            self._eager.learn(heard=bool(gathered.rows) or not self._plans)
            self.disarm()
            statistics = Readback(self._statistics(gathered))
            gathered.own_time += time.perf_counter() - started
            self._pending = gathered, statistics
        if self._pending is None or not self._pending[1].ready:
            return None
        started = time.perf_counter()
        (gathered, statistics), self._pending = self._pending, None
        sample = self._sample(gathered, statistics.values().numpy())
        self.samples += 1
        self.budget.spend(gathered.own_time + time.perf_counter() - started)
        return sample

    def _ids(self) -> range:
        return range(len(self.layers))

    def _entering(self, plan: _Plan) -> Callable[..., None]:
        def entering(_module: nn.Module, _args: Any) -> None:
            gathered = self._step
            # A call that raised has left a watch but no rows, and is measured anew.
            if gathered is None or plan.layer_id in gathered.rows or not self._in_training():
                return
            gathered.watches[plan.layer_id] = _Stopwatch(cuda=self._cuda)

        return entering

    def _leaving(self, plan: _Plan) -> Callable[..., None]:
        layer_id = plan.layer_id

        def leaving(_module: nn.Module, _args: Any, output: Any) -> None:
            gathered = self._step
            if gathered is None or layer_id in gathered.rows or not self._in_training():
                return
            if (watch := gathered.watches.get(layer_id)) is None:
                return
            watch.stop()
            started = time.perf_counter()
            tensor = _first_tensor(output)
            if tensor is not None and tensor.is_floating_point() and tensor.numel():
                rows = sample_rows(tensor.detach(), channels_second=plan.channels_second)
                gathered.rows[layer_id] = spread_units(rows, WIDEST).float()
            self._charge_hook(gathered, started)

        return leaving

    def _in_training(self) -> bool:
        return self.layers.model.training and torch.is_grad_enabled()

    def _before(self, *_: Any) -> None:
        gathered = self._step
        if gathered is None or gathered.gradient_norm is not None:
            return
        started = time.perf_counter()
        with torch.no_grad():
            gathered.gradient_norm = self._meter.gradient_norms(gradient_scale(self._run.optimizer))
            self._meter.remember()
        self._charge_hook(gathered, started)

    def _after(self, *_: Any) -> None:
        gathered = self._step
        if gathered is None or gathered.update_ratio is not None:
            return
        started = time.perf_counter()
        with torch.no_grad():
            gathered.update_ratio = self._meter.update_ratios()
            gathered.weight_norm = self._meter.weight_norms()
        self._charge_hook(gathered, started)

    def _charge_hook(self, gathered: _Step, started: float) -> None:
        seconds = time.perf_counter() - started
        gathered.own_time += seconds
        self.hook_time += seconds

    def _statistics(self, gathered: _Step) -> torch.Tensor:
        """All numbers of the sample, shape [8, N]: see `_sample` for the rows."""
        size = len(self.layers)
        device = next((rows.device for rows in gathered.rows.values()), torch.device("cpu"))
        table = torch.full((8, size), torch.nan, dtype=torch.float64, device=device)
        with torch.no_grad():
            self._unit_statistics(gathered, table)
            for row, values in (
                (5, gathered.gradient_norm),
                (6, gathered.weight_norm),
                (7, gathered.update_ratio),
            ):
                if values is not None:
                    table[row] = values.to(device)
        return table

    def _unit_statistics(self, gathered: _Step, table: torch.Tensor) -> None:
        alike: dict[tuple[int, torch.device], list[int]] = {}
        seen: list[int] = []
        values: list[torch.Tensor] = []
        for plan in self._plans:
            rows = gathered.rows.get(plan.layer_id)
            if rows is None:
                continue
            alike.setdefault((rows.shape[0], rows.device), []).append(plan.layer_id)
            active = self._activated(plan, gathered)
            size = active.abs()
            self.activity[plan.layer_id] = size.mean(dim=0)
            # A sum is not finite if any of its terms is not, and costs half as much as asking.
            seen.append(plan.layer_id)
            values += [dead_ratio(size), saturated_ratio(plan.activation, active), rows.sum() * 0]
        if not seen:
            return
        columns = torch.stack([value.to(table) for value in values]).view(-1, 3).T
        table[2:5, torch.tensor(seen, device=table.device)] = columns
        for members in alike.values():
            slices = [spread_units(gathered.rows[layer_id], MAX_UNITS) for layer_id in members]
            index = torch.tensor(members, device=table.device)
            table[:2, index] = torch.stack(unit_moments(slices)).to(table)

    def _activated(self, plan: _Plan, gathered: _Step) -> torch.Tensor:
        """The layer's rows after the activation that follows it."""
        if plan.site is not None and plan.site in gathered.rows:
            return gathered.rows[plan.site]
        source = gathered.rows.get(plan.reader, gathered.rows[plan.layer_id])
        follows = plan.activation if plan.site != plan.layer_id else None
        return apply_activation(follows, source)

    def _sample(self, gathered: _Step, table: npt.NDArray[np.float64]) -> Sample:
        variance, correlation, dead, saturation, finite, gradient, weight, update = table
        flags = np.zeros(len(self.layers), np.uint32)
        # `finite` is 0 times the sum of a layer's rows, NaN where nothing was seen either.
        broken = (np.isnan(finite) & gathered.seen(len(self.layers))) | np.isinf(variance)
        flags[broken] |= np.uint32(Flag.NONFINITE_ACTIVATION)
        flags[np.isinf(gradient)] |= np.uint32(Flag.NONFINITE_GRADIENT)
        flags[np.isinf(weight) | np.isinf(update)] |= np.uint32(Flag.NONFINITE_WEIGHT)
        latency = np.full(len(self.layers), np.nan)
        for layer_id, watch in gathered.watches.items():
            latency[layer_id] = watch.milliseconds()
        columns: dict[str, npt.NDArray[Any]] = {
            "activation_variance": np.where(broken, np.nan, variance),
            "avg_correlation": np.where(broken, np.nan, correlation),
            "dead_neuron_ratio": np.where(broken, np.nan, dead),
            "saturation": np.where(broken, np.nan, saturation),
            "gradient_norm": np.where(np.isinf(gradient), np.nan, gradient),
            "weight_norm": np.where(np.isinf(weight), np.nan, weight),
            "update_ratio": np.where(np.isinf(update), np.nan, update),
            "execution_latency": latency,
        }
        errors = (flags > 0).astype(np.uint32)
        score, measured = health_scores(columns, self._sizes, errors)
        columns |= {"health_score": score, "flags": flags, "error_count": errors}
        return Sample(gathered.number, columns, measured)


def _plan(layers: Layers, layer_id: int) -> _Plan:
    module = layers.module(layer_id)
    second = layers.channels_second(layer_id)
    own = activation_name(module)
    if own is not None:
        return _Plan(layer_id, second, layer_id, layer_id, own)
    reader, site = layers.activated(layer_id)
    if site is None:
        return _Plan(layer_id, second, layer_id, None, None)
    return _Plan(layer_id, second, reader, site.layer_id, site.name)


class _Stopwatch:
    """Times one forward pass: by the clock on the CPU, by events on a GPU."""

    def __init__(self, *, cuda: bool) -> None:
        self._events = (
            tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) if cuda else None
        )
        self._seconds = float("nan")
        if self._events is not None:
            self._events[0].record()
        self._started = time.perf_counter()

    def stop(self) -> None:
        self._seconds = time.perf_counter() - self._started
        if self._events is not None:
            self._events[1].record()

    def milliseconds(self) -> float:
        """NaN if it was never stopped, or the GPU has not come that far."""
        if self._events is None:
            return self._seconds * 1e3
        done = np.isfinite(self._seconds) and self._events[1].query()
        return float(self._events[0].elapsed_time(self._events[1])) if done else float("nan")


def _first_tensor(output: Any) -> torch.Tensor | None:
    while isinstance(output, list | tuple) and output:
        output = output[0]
    if isinstance(output, torch.nn.utils.rnn.PackedSequence):
        output = output.data
    return output if isinstance(output, torch.Tensor) else None
