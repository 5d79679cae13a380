"""One real training run of a task, with or without faults, with or without Tamiyo."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tamiyo.contracts import AdaptationDecision, AdaptationResult, ModelTopology
from tamiyo.control import Control
from tamiyo.envs import Fault, Task

__all__ = ["OnStep", "TrainingRecord", "train"]

Attach = Callable[[nn.Module, torch.optim.Optimizer], Control]
EVALUATE_EVERY = 50


@dataclass
class TrainingRecord:
    """What one run showed.

    Attributes:
        name: Name of the run.
        losses: Training loss of every step, NaN and infinities included.
        evaluations: (step, held-out loss, held-out accuracy), every 50 steps and at the end.
        faults: What was injected, and when.
        history: Decisions that reached the host, each with its latest result.
        stats: What Tamiyo counted and measured; empty without Tamiyo.
        topology: The traced model, with Tamiyo.
        seconds: Wall time of the training loop.
    """

    name: str
    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float, float]] = field(default_factory=list)
    faults: Sequence[Fault] = ()
    history: Sequence[tuple[AdaptationDecision, AdaptationResult]] = ()
    stats: dict[str, Any] = field(default_factory=dict)
    topology: ModelTopology | None = None
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """Held-out accuracy at the end."""
        return self.evaluations[-1][2] if self.evaluations else math.nan


OnStep = Callable[[TrainingRecord, Control | None], None]


def train(
    name: str,
    task: Task,
    seed: int,
    *,
    faults: Sequence[Fault] = (),
    attach: Attach | None = None,
    on_step: OnStep = lambda _record, _control: None,
) -> TrainingRecord:
    """Train `task` to the end.

    The seed fixes the initial weights and the order of the data, so that runs which differ in
    faults or in control start equal. `on_step` is called after every step, for displays.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = task.make_model()
        optimizer = task.make_optimizer(model)
        control = attach(model, optimizer) if attach is not None else None
        record = TrainingRecord(name, faults=faults)
        batches = task.batches(seed)
        started = time.perf_counter()
        with control or nullcontext():
            for step in range(1, task.steps + 1):
                inputs, labels = next(batches)
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), labels)
                loss.backward()
                optimizer.step()
                record.losses.append(loss.item())
                if control is not None:
                    control.step(loss=loss)
                if step % EVALUATE_EVERY == 0 or step == task.steps:
                    val_loss, accuracy = task.evaluate(model)
                    record.evaluations.append((step, val_loss, accuracy))
                    if control is not None:
                        control.report(val_loss=val_loss, val_accuracy=accuracy)
                for fault in faults:
                    if fault.step == step:
                        fault.strike(model, optimizer)
                on_step(record, control)
            record.seconds = time.perf_counter() - started
        if control is not None:
            record.topology = control.topology
            record.history = list(control.history)
            record.stats = control.stats()
    return record
