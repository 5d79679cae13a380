"""Hosts that train side by side as one batched tensor program."""

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tamiyo.envs.training.data import CLASSES
from tamiyo.envs.training.gathering import Gathering, every_row, first_rows, hidden_rows
from tamiyo.envs.training.hosts import ACTIVATIONS, HostSpec, batch_order, rate_schedule
from tamiyo.envs.training.layout import Layout
from tamiyo.envs.training.meter import StepMeter
from tamiyo.envs.training.network import Network, connect
from tamiyo.envs.training.optimizers import OptimizerState
from tamiyo.envs.training.pool import DataPool
from tamiyo.envs.training.propagation import backward, cross_entropy, forward
from tamiyo.envs.training.updates import Updates
from tamiyo.envs.training.weights import Weights, initial_weights

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
        self.pool = DataPool(self.specs, self.device, dtype)
        orders = np.stack([batch_order(spec, steps) for spec in self.specs])
        self._orders = self.pool.places(torch.as_tensor(orders, device=self.device))
        factors = np.stack([rate_schedule(spec, steps) for spec in self.specs])
        self._schedule = torch.as_tensor(factors, device=self.device, dtype=dtype)
        rates = self._per_host([spec.learning_rate for spec in specs])
        self.learning_rate = rates[torch.as_tensor(self.layout.host_of, device=self.device)]
        """[R + H]: rates of the optimiser's parameter groups, one for each layer, which the
        schedule goes by."""
        self.rate_factor = torch.ones(self.layout.rows, device=self.device, dtype=dtype)
        """[R + H]: what an adaptation multiplies a layer's updates with."""
        self.clip_ratio = torch.full_like(self.rate_factor, torch.inf)
        """[R + H]: see `clip_adaptively`; infinite where nothing is clipped. Call `rewire` after a
        change."""
        self.kinds = self._first_kinds()
        """[R]: index into `ACTIVATIONS`. Call `rewire` after a change."""
        self.steps = 0
        """Optimiser steps done."""
        self._describe()

    @classmethod
    def gathered(
        cls, pieces: Sequence[tuple["Cohort", npt.NDArray[np.int64]]], order: npt.NDArray[np.int64]
    ) -> "Cohort":
        """A cohort of copies of hosts, which go on there as they would where they are.

        Args:
            pieces: Cohorts that stem from one cohort and are at the same step, and which hosts of
                each to copy.
            order: Puts these hosts, one piece after another, deepest first.
        """
        cohorts, hosts = [one for one, _ in pieces], [some for _, some in pieces]
        first = cohorts[0]
        gathering = Gathering([one.layout for one in cohorts], hosts, order, first.device)
        take, copies = gathering.take, copy.copy(first)
        copies.layout, copies.specs = gathering.layout, tuple(gathering.layout.specs)
        copies.pool = first.pool.of(copies.specs)
        copies.weights = Weights.gathered(gathering, [one.weights for one in cohorts])
        copies.optimizer = OptimizerState.gathered(gathering, [one.optimizer for one in cohorts])
        copies.units = take([one.units for one in cohorts], hidden_rows)
        copies.kinds = take([one.kinds for one in cohorts], hidden_rows)
        copies.learning_rate = take([one.learning_rate for one in cohorts], every_row)
        copies.rate_factor = take([one.rate_factor for one in cohorts], every_row)
        copies.clip_ratio = take([one.clip_ratio for one in cohorts], every_row)
        copies._orders = take([one._orders for one in cohorts], first_rows)
        copies._schedule = take([one._schedule for one in cohorts], first_rows)
        copies._describe()
        return copies

    @property
    def hosts(self) -> int:
        """H."""
        return self.layout.hosts

    def _describe(self) -> None:
        """Derive what follows from the specs and the present state."""
        layout = self.layout
        self.host_of = torch.as_tensor(layout.host_of, device=self.device)
        self._momentum = self._per_host([spec.momentum for spec in self.specs])[self.host_of]
        self.impossible = self._impossible_classes()
        self._bias_gradient = torch.zeros_like(self.weights.bias)
        self._updates = Updates(layout, self.weights, self._bias_gradient, self.optimizer)
        self._wired = False

    @property
    def total_steps(self) -> int:
        """Steps for which there are batches."""
        return self._orders.shape[1]

    @property
    def run_rate(self) -> Tensor:
        """[H]: the present learning rate, as the optimiser's first parameter group has it."""
        return self.learning_rate[: self.hosts] * self._scheduled()

    def _scheduled(self) -> Tensor:
        return self._schedule[:, min(self.steps, self.total_steps - 1)]

    def rewire(self) -> None:
        """Take changed activations and clipping into account."""
        self._wired = False

    def _wire(self) -> Network:
        """The networks as they are now."""
        if not self._wired:
            parameters = self.layout, self.weights, self.units, self.kinds
            self._network = connect(*parameters, self._bias_gradient)
            self._clipped = self.clip_ratio.isfinite().nonzero()[:, 0].tolist()
            self._wired = True
        return self._network

    @torch.no_grad()
    def train(self, meter: StepMeter | None = None) -> Tensor:
        """One optimiser step of every host.

        Args:
            meter: Is shown the step, if one is to be measured.

        Returns:
            The losses [H] before the step, NaN and all.
        """
        network = self._wire()
        x, labels = self.pool.samples(self._orders[:, self.steps])
        passed = forward(network, x, keep_linear=meter is not None)
        loss, at_logits = cross_entropy(passed.logits, labels, self.impossible)
        rates = self.learning_rate * self._scheduled()[self.host_of] * self.rate_factor
        clipped = self._clipped, self.clip_ratio
        self._updates.begin(rates, self._momentum, self.host_of, clipped, meter)
        backward(network, passed, at_logits, self._updates.take)
        self._updates.finish()
        if meter is not None:
            meter.passed = passed
        self.steps += 1
        return loss

    @torch.no_grad()
    def evaluate(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and accuracy [H] on samples [H, S, 64] with labels [H, S].

        A loss that is not finite counts as the cap, and logits that are not finite are wrong.
        """
        logits = forward(self._wire(), x).logits
        loss, _ = cross_entropy(logits, labels, self.impossible)
        # Of logits that are NaN the first would count as the largest.
        usable = logits.isfinite().all(dim=-1)
        right = ((logits + self.impossible).argmax(dim=-1) == labels) & usable
        return capped(loss), right.to(self.dtype).mean(dim=-1)

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
