"""A whole training: iterations until it is done, checkpoints, metrics, a progress bar."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium.vector import VectorEnv
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tamiyo.learn.checkpoints import TrainingCheckpoints
from tamiyo.learn.learner import PolicyLearner
from tamiyo.learn.metrics import MetricsLog

__all__ = ["TrainingSummary", "train"]


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """How a training ended."""

    reason: str
    """Why it ended: `steps`, `iterations`, `converged` or `stopped`."""
    iterations: int
    optimizer_steps: int
    decisions: int
    history: tuple[Mapping[str, float], ...]
    """One row per iteration."""


def train(
    learner: PolicyLearner,
    env: VectorEnv[Any, Any, Any],
    *,
    iterations: int | None = None,
    directory: str | Path | None = None,
    checkpoint_every: int = 1,
    tensorboard: bool = False,
    progress: bool = False,
    stop: Callable[[Mapping[str, float]], bool] | None = None,
    report: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainingSummary:
    """Iterate until the configured optimiser steps are done or the learner has converged.

    With a directory, a training that was interrupted at any moment goes on from its newest
    checkpoint and ends with the same numbers as one that was not.

    Args:
        learner: What learns; its state is replaced by that of a checkpoint, if there is one.
        env: The runs that it decides for.
        iterations: Most iterations, counted from the very first.
        directory: Of checkpoints and metrics.
        checkpoint_every: Iterations between checkpoints.
        tensorboard: Also write event files into the directory.
        progress: Show a bar.
        stop: Ends the training when it returns true for an iteration's measurements.
        report: Is given every iteration's measurements.
    """
    checkpoints = None if directory is None else TrainingCheckpoints(directory)
    state = None if checkpoints is None else checkpoints.newest()
    if state is not None:
        learner.load_state(state)
    with ExitStack() as stack:
        log = stack.enter_context(
            MetricsLog(directory, learner.progress.iteration, tensorboard=tensorboard)
        )
        show = _bar(stack, learner) if progress else None
        reason = _why_end(learner, iterations)
        while reason is None:
            iteration = learner.progress.iteration
            measured = learner.iterate(env)
            log.add(iteration, measured)
            if report is not None:
                report(measured)
            reason = _why_end(learner, iterations)
            if reason is None and stop is not None and stop(measured):
                reason = "stopped"
            if checkpoints is not None and (reason or (iteration + 1) % checkpoint_every == 0):
                checkpoints.write(learner.progress.iteration, learner.state())
            if show is not None:
                show(measured)
        done = learner.progress
        return TrainingSummary(
            reason, done.iteration, done.optimizer_steps, done.decisions, tuple(log.rows)
        )


def _why_end(learner: PolicyLearner, iterations: int | None) -> str | None:
    if learner.finished:
        return "steps"
    if learner.converged:
        return "converged"
    if iterations is not None and learner.progress.iteration >= iterations:
        return "iterations"
    return None


def _bar(stack: ExitStack, learner: PolicyLearner) -> Callable[[Mapping[str, float]], None]:
    total = learner.config.num_training_steps
    bar = stack.enter_context(
        Progress(
            TextColumn("iteration {task.fields[iteration]}"),
            BarColumn(),
            TextColumn("return {task.fields[result]:.3f}  KL {task.fields[kl]:.4f}"),
            TimeRemainingColumn(),
        )
    )
    nothing = float("nan")
    task = bar.add_task("training", total=total, iteration=0, result=nothing, kl=nothing)

    def show(measured: Mapping[str, float]) -> None:
        bar.update(
            task,
            completed=learner.progress.optimizer_steps,
            iteration=learner.progress.iteration,
            result=measured["return"],
            kl=measured["kl"],
        )

    return show
