"""The same training three times: healthy, with faults, with the same faults and Tamiyo."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tamiyo.bench.runs import OnStep, TrainingRecord, train
from tamiyo.contracts import Outcome
from tamiyo.control import Control, attach
from tamiyo.envs import Fault, Task

__all__ = ["RUN_NAMES", "Comparison", "compare"]

RUN_NAMES = ("healthy", "faults, alone", "faults, with Tamiyo")
PROVING_LOSS = 0.20
"""Accuracy that the faults must cost without Tamiyo for the comparison to prove anything."""
CLOSE = 0.03
"""Distance to the healthy run, in accuracy, that counts as recovered."""


@dataclass(frozen=True)
class Comparison:
    """Three finished runs of one task with one seed."""

    seed: int
    healthy: TrainingRecord
    alone: TrainingRecord
    rescued: TrainingRecord

    @property
    def runs(self) -> tuple[TrainingRecord, TrainingRecord, TrainingRecord]:
        """All three, in the order in which they ran."""
        return self.healthy, self.alone, self.rescued

    @property
    def lost(self) -> float:
        """Held-out accuracy that the faults cost when nobody helps."""
        return self.healthy.accuracy - self.alone.accuracy

    @property
    def recovered_share(self) -> float:
        """Share of the lost accuracy that Tamiyo won back; NaN if nothing was lost."""
        if self.lost <= 0:
            return math.nan
        return (self.rescued.accuracy - self.alone.accuracy) / self.lost

    @property
    def proves_something(self) -> bool:
        """Whether the faults did enough harm for a rescue to mean anything."""
        return self.lost >= PROVING_LOSS

    @property
    def is_close(self) -> bool:
        """Whether the rescued run ended within three points of the healthy one."""
        return self.rescued.accuracy >= self.healthy.accuracy - CLOSE

    def steps_to_recovery(self, run: TrainingRecord, fault: Fault) -> float:
        """Steps from a fault to the first evaluation near the healthy run's at the same step.

        NaN if the run stays away until the next fault or the end.
        """
        ends = [other.step for other in run.faults if other.step > fault.step]
        end = min(ends, default=math.inf)
        healthy = {step: accuracy for step, _loss, accuracy in self.healthy.evaluations}
        for step, _loss, accuracy in run.evaluations:
            if fault.step < step <= end and accuracy >= healthy[step] - CLOSE:
                return step - fault.step
        return math.nan

    def decisions(self, *outcomes: Outcome) -> int:
        """Decisions of the rescued run whose latest result is one of `outcomes`."""
        return sum(result.outcome in outcomes for _decision, result in self.rescued.history)


def compare(
    task: Task,
    faults: Sequence[Fault],
    seed: int,
    *,
    on_step: OnStep = lambda _record, _control: None,
) -> Comparison:
    """Run all three. Only the injection knows the faults; Tamiyo is attached as a user would."""

    def attached(model: nn.Module, optimizer: torch.optim.Optimizer) -> Control:
        return attach(model, optimizer, mode="autonomous", total_steps=task.steps)

    healthy, alone, rescued = RUN_NAMES
    return Comparison(
        seed,
        train(healthy, task, seed, on_step=on_step),
        train(alone, task, seed, faults=faults, on_step=on_step),
        train(rescued, task, seed, faults=faults, attach=attached, on_step=on_step),
    )
