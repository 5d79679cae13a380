"""Hosts that train side by side as one batched tensor program."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tamiyo.envs.training.activations import group_kinds
from tamiyo.envs.training.data import CLASSES
from tamiyo.envs.training.hosts import ACTIVATIONS, HostSpec, batch_order
from tamiyo.envs.training.layout import Layout
from tamiyo.envs.training.meter import StepMeter
from tamiyo.envs.training.optimizers import OptimizerState, StepSizes, clip_adaptively
from tamiyo.envs.training.pool import DataPool
from tamiyo.envs.training.propagation import Wires, backward, cross_entropy, forward
from tamiyo.envs.training.weights import initial_weights

__all__ = ["Cohort", "capped"]

LOSS_CAP = 1e4
"""Largest loss that is reported; what is not finite counts as it."""


class Cohort:
    """H hosts with one kind of optimiser, padded to one width.

    Nothing of one host ever reaches another one: all products are per host, and so are the losses.

    Args:
        specs: The hosts, deepest first (see `Layout`).
        steps: Optimiser steps for which batches are drawn.
        width: Width to pad to; by default that of the widest host.
        device: Where to train.
        dtype: Floating-point type of everything.

    Raises:
        ValueError: hosts that are not sorted, of different optimisers, or wider than `width`.
    """

    def __init__(
        self,
        specs: Sequence[HostSpec],
        *,
        steps: int,
        width: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        kinds = {spec.optimizer for spec in specs}
        if len(kinds) != 1:
            raise ValueError(f"hosts of one cohort share an optimiser, not {sorted(kinds)}")
        widest = max(max(spec.widths) for spec in specs)
        self.width = widest if width is None else width
        if widest > self.width:
            raise ValueError(f"a host is {widest} wide, more than {self.width}")
        self.specs = tuple(specs)
        self.layout = Layout(self.specs)
        self.device, self.dtype = torch.device(device), dtype
        self.weights, self.units = initial_weights(self.layout, self.width, self.device, dtype)
        self.optimizer = OptimizerState.blank(specs[0].optimizer, self.weights)
        largest = max(self.weights.level(self.layout, i).numel() for i in self.layout.all_levels)
        self._scratch = self.weights.first.new_empty(largest)
        self.pool = DataPool(self.specs, self.device, dtype)
        orders = np.stack([batch_order(spec, steps) for spec in self.specs])
        self._orders = self.pool.places(torch.as_tensor(orders, device=self.device))
        self.host_of = torch.as_tensor(self.layout.host_of, device=self.device)
        self.learning_rate = self._per_host([spec.learning_rate for spec in specs])[self.host_of]
        """[R + H]: rates of the optimiser's parameter groups, one for each layer."""
        self.rate_factor = torch.ones(self.layout.rows, device=self.device, dtype=dtype)
        """[R + H]: what an adaptation multiplies a layer's updates with."""
        self.clip_ratio = torch.full_like(self.rate_factor, torch.inf)
        """[R + H]: see `clip_adaptively`."""
        self.kinds = self._first_kinds()
        """[R]: index into `ACTIVATIONS`. Call `rewire` after a change."""
        self.steps = 0
        """Optimiser steps done."""
        self._momentum = self._per_host([spec.momentum for spec in specs])[self.host_of]
        self.impossible = self._impossible_classes()
        self.rewire()

    @property
    def hosts(self) -> int:
        """H."""
        return self.layout.hosts

    @property
    def total_steps(self) -> int:
        """Steps for which there are batches."""
        return self._orders.shape[1]

    def rewire(self) -> None:
        """Take changed activations and units into account."""
        layout = self.layout
        wired = [spec.wiring if spec.hidden > 1 else "plain" for spec in self.specs]
        residual = self._per_host([float(wiring == "residual") for wiring in wired])
        skip = self._per_host([float(wiring == "skip") for wiring in wired])
        self.wires = Wires(
            layout=layout,
            kinds=[group_kinds(self.kinds[layout.rows_at(i)]) for i in range(layout.levels)],
            units=self.units,
            residual=residual[:, None, None],
            skip=skip[:, None, None],
            residuals=[i > 0 and "residual" in wired[:n] for i, n in enumerate(layout.counts)],
            skips=["skip" in wired[layout.ending_at(i)] for i in range(layout.levels)],
        )

    @torch.no_grad()
    def train(self, meter: StepMeter | None = None) -> Tensor:
        """One optimiser step of every host.

        Args:
            meter: Is shown the step, if one is to be measured.

        Returns:
            The losses [H] before the step, NaN and all.
        """
        x, labels = self.pool.samples(self._orders[:, self.steps])
        passed = forward(self.weights, self.wires, x, keep_linear=meter is not None)
        loss, at_logits = cross_entropy(passed.logits, labels, self.impossible)
        rates = self.learning_rate * self.rate_factor
        sizes = self.optimizer.begin_step(rates, self._momentum, self.host_of)

        def update(level: int, gradient: Tensor) -> None:
            rows, weight = layout.rows_at(level), self.weights.level(layout, level)
            if clips:
                clip_adaptively(weight, gradient, self.clip_ratio[rows], axis=1)
            if meter is not None:
                meter.before(rows, weight, gradient)
            self.optimizer.update_level(layout, level, self.weights, gradient, sizes)
            if meter is not None:
                meter.after(rows, weight)

        layout, clips = self.layout, bool(self.clip_ratio.isfinite().any())
        biases = backward(self.weights, self.wires, passed, at_logits, self._scratch, update)
        self._update_biases(biases, sizes, meter)
        if meter is not None:
            meter.passed = passed
        self.steps += 1
        return loss

    @torch.no_grad()
    def evaluate(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and accuracy [H] on samples [H, S, 64] with labels [H, S].

        A loss that is not finite counts as the cap, and logits that are not finite are wrong.
        """
        logits = forward(self.weights, self.wires, x).logits
        loss, _ = cross_entropy(logits, labels, self.impossible)
        # Of logits that are NaN the first would count as the largest.
        usable = logits.isfinite().all(dim=-1)
        right = ((logits + self.impossible).argmax(dim=-1) == labels) & usable
        return capped(loss), right.to(self.dtype).mean(dim=-1)

    def _update_biases(self, gradient: Tensor, sizes: StepSizes, meter: StepMeter | None) -> None:
        bias, rows = self.weights.bias, slice(0, self.layout.rows)
        # A vector of biases counts as one unit.
        clip_adaptively(bias, gradient, self.clip_ratio, axis=-1)
        if meter is not None:
            meter.before(rows, bias, gradient)
        self.optimizer.update_biases(self.weights, gradient, sizes)
        if meter is not None:
            meter.after(rows, bias)

    def _per_host(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self.device, dtype=self.dtype)

    def _first_kinds(self) -> Tensor:
        of_host = np.array([ACTIVATIONS.index(spec.activation) for spec in self.specs])
        rows = of_host[self.layout.host_of[: self.layout.hidden_rows]]
        return torch.as_tensor(rows, device=self.device)

    def _impossible_classes(self) -> Tensor:
        classes = torch.tensor([spec.dataset.classes for spec in self.specs])
        impossible = torch.arange(CLASSES)[None, :] >= classes[:, None]
        none = torch.zeros(impossible.shape, dtype=self.dtype)
        return none.masked_fill(impossible, -torch.inf)[:, None].to(self.device)


def capped(loss: Tensor) -> Tensor:
    """Losses of at most the cap; those that are not finite are equal to it."""
    return loss.nan_to_num(LOSS_CAP, LOSS_CAP, LOSS_CAP).clamp_max(LOSS_CAP)
