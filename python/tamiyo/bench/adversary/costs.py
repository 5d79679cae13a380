"""What a snapshot and a rollback take, per subject."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from tamiyo.bench.adversary.runs import Training
from tamiyo.bench.adversary.subjects import Subject
from tamiyo.host import RunSnapshot, TrainingRun

__all__ = ["Cost", "measure"]

REPEATS = 30


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over 30 repetitions.

    Attributes:
        subject: What was measured.
        parameters: Trained scalars.
        nbytes: Host memory of one snapshot.
        step_ms: One training step, without Tamiyo.
        snapshot_ms: Taking a snapshot, into memory that an older one has left.
        rollback_ms: Restoring it and comparing every bit.
    """

    subject: str
    parameters: int
    nbytes: int
    step_ms: float
    snapshot_ms: float
    rollback_ms: float


def measure(subject: Subject) -> Cost:
    """Measure one subject in the middle of its training."""
    with torch.random.fork_rng(devices=[]):
        training = Training(subject, 0)
        step_ms = _median_ms(training.step)
        run = TrainingRun(training.model, training.optimizer, training.scheduler)
        snapshots = [RunSnapshot(run, 0)]
        snapshot_ms = _median_ms(
            lambda: snapshots.append(RunSnapshot(run, 0, reuse=snapshots.pop()))
        )

        def roll_back() -> None:
            snapshots[0].restore(random_state=False)
            snapshots[0].verify(random_state=False)

        return Cost(
            subject.name,
            sum(parameter.numel() for parameter in training.model.parameters()),
            snapshots[0].nbytes,
            step_ms,
            snapshot_ms,
            _median_ms(roll_back),
        )


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1e3)
    return median(times)
