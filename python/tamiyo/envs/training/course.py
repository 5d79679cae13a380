"""Hosts on their way through an episode, with their faults and the data that judges them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.faults import strike
from tamiyo.envs.training.meter import StepMeter
from tamiyo.envs.training.sampling import Scenario

__all__ = ["Course", "Quality"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quality:
    """Held-out loss and accuracy, each [H]."""

    loss: Floats
    accuracy: Floats


class Course:
    """A cohort that is struck by its faults when their time has come.

    Args:
        cohort: The hosts.
        scenarios: What befalls each of them.
        held_out: How many samples to judge them by.
    """

    def __init__(self, cohort: Cohort, scenarios: Sequence[Scenario], held_out: int) -> None:
        self.cohort, self.scenarios = cohort, scenarios
        self._held_out_count = held_out
        self._held_out = cohort.pool.held_out(held_out)
        self._strikes: dict[int, list[int]] = {}
        for host, scenario in enumerate(scenarios):
            self._strikes.setdefault(scenario.fault.step, []).append(host)

    @classmethod
    def gathered(cls, pieces: Sequence[tuple["Course", Ints]], order: Ints) -> "Course":
        """Copies of some hosts of some courses; see `Cohort.gathered`."""
        scenarios = [course.scenarios[host] for course, hosts in pieces for host in hosts]
        return cls(
            Cohort.gathered([(course.cohort, hosts) for course, hosts in pieces], order),
            [scenarios[place] for place in order],
            pieces[0][0]._held_out_count,
        )

    def train(self, steps: int, meter: StepMeter | None = None) -> Floats:
        """Train every host.

        Args:
            steps: Optimiser steps, at least one.
            meter: Is shown the last one.

        Returns:
            [H, steps], the losses before each step, NaN and all.
        """
        losses = [self._step() for _ in range(steps - 1)]
        losses.append(self._step(meter))
        return torch.stack(losses, dim=1).double().cpu().numpy()

    def quality(self) -> Quality:
        """How good the hosts are now."""
        loss, accuracy = self.cohort.evaluate(*self._held_out)
        return Quality(loss.double().cpu().numpy(), accuracy.double().cpu().numpy())

    @torch.no_grad()
    def _step(self, meter: StepMeter | None = None) -> Tensor:
        for host in self._strikes.get(self.cohort.steps, ()):
            strike(self.cohort, host, self.scenarios[host].fault)
        return self.cohort.train(meter)
