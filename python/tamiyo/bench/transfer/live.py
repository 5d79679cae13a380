"""One live run: a plain training loop, with Tamiyo beside it or without."""

import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf, isfinite, isnan, nan
from statistics import median

import torch
from torch.nn import functional

from tamiyo.bench.hearing import heard
from tamiyo.bench.transfer.cases import Case
from tamiyo.bench.transfer.deciders import NOBODY, ORACLE, OraclePolicy, make_policy
from tamiyo.bench.transfer.faults import linear_layers
from tamiyo.bench.transfer.rows import Act, Row
from tamiyo.contracts import AdaptationType
from tamiyo.control import Control, attach
from tamiyo.envs.training.faults import WHOLE_RUN
from tamiyo.host import TrainingRun
from tamiyo.host.checksums import run_checksum
from tamiyo.policy import DecisionPolicy

__all__ = ["play"]

EVALUATE_EVERY = 50
"""Optimiser steps between the evaluations that are reported."""
LAST, EVERY = 5, 10
"""How many evaluations, so many steps apart, count at the end: a single one may fall on a spike."""


@dataclass(slots=True)
class _Course:
    """What a run showed by itself."""

    version: str = ""
    place: str | None = None
    accuracy: float = nan
    loss: float = nan
    checksum: str = ""
    readings: int | None = None
    acts: tuple[Act, ...] = ()
    problems: list[str] = field(default_factory=list)


def play(case: Case, policy: str, untouched: Row | None = None, clean: Row | None = None) -> Row:
    """Make one run; the same case and policy give the same row.

    Only runs that are watched `by default` depend on the clock.

    Args:
        case: What is run.
        policy: Who decides, see `make_policy`; `none` and `oracle` besides.
        untouched: The row of the same case with policy `none`, unless this is it.
        clean: The row of its healthy twin with policy `none`, unless this is it.

    Raises:
        CheckpointError: the policy cannot be used.
        ValueError: a row to compare with is missing.
    """
    if (policy != NOBODY and untouched is None) or (case.kind is not None and clean is None):
        raise ValueError(f"nothing to compare {case.key} with")
    torch.set_num_threads(1)
    started = time.perf_counter()
    course = _train(case, policy)
    return Row(
        number=case.number,
        fault=case.fault,
        steps=case.steps,
        policy=policy,
        version=course.version,
        host=case.host.as_json(),
        watching=case.watching.as_json(),
        strike=None if case.kind is None else case.strike,
        place=course.place,
        cures=_accepted(case, course.place),
        readings=course.readings,
        acts=course.acts,
        accuracy=course.accuracy,
        loss=course.loss if isfinite(course.loss) else None,
        checksum=course.checksum,
        untouched=course.accuracy if untouched is None else untouched.accuracy,
        clean=course.accuracy if clean is None else clean.accuracy,
        same_bits=untouched is None or untouched.checksum == course.checksum,
        problems=tuple(course.problems),
        seconds=time.perf_counter() - started,
    )


def _train(case: Case, policy: str) -> _Course:
    course = _Course()
    with torch.random.fork_rng(devices=[]), heard(course.problems):
        torch.manual_seed(case.number)
        loop = _Loop(case)
        course.place = loop.place
        decider = None if policy == NOBODY else _decider(case, policy, loop.place)
        course.version = "" if decider is None else decider.version
        try:
            loop.run(decider)
        except Exception:
            course.problems.append(traceback.format_exc())
        course.acts = tuple(loop.acts())
        if loop.control is not None:
            course.readings = loop.control.stats()["host"]["samples"]
        course.loss, course.accuracy = loop.ending()
        course.checksum = run_checksum(TrainingRun(loop.model, loop.optimizer))
    return course


class _Loop:
    """A training loop as a user writes it.

    Args:
        case: What is run; the first weights come from torch's global random state.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.task = case.host.task(case.steps)
        self.model = self.task.make_model()
        self.optimizer = self.task.make_optimizer(self.model)
        self.scheduler = case.host.scheduler(self.optimizer, case.steps)
        self.place: str | None = None
        """Name of the faulty layer."""
        self.control: Control | None = None
        self._last: list[tuple[float, float]] = []
        if case.kind is not None and case.layer != WHOLE_RUN:
            self.place = linear_layers(self.model)[case.layer]

    def run(self, decider: DecisionPolicy | None) -> None:
        """Train to the end."""
        case, fault = self.case, self.case.injected()
        first = case.watching.first_step(case.steps)
        last = range(case.steps, case.steps - LAST * EVERY, -EVERY)
        batches = self.task.batches(case.number)
        with ExitStack() as ended:
            for step in range(case.steps):
                if fault is not None and fault.step == step:
                    fault.strike(self.model, self.optimizer)
                if decider is not None and step == first:
                    self.control = ended.enter_context(self._attach(decider))
                loss = self._step(*next(batches))
                if step + 1 in last:
                    self._last.append(self.task.evaluate(self.model))
                if self.control is not None:
                    self.control.step(loss=loss)
                    if case.watching.reports and (step + 1) % EVALUATE_EVERY == 0:
                        held_out, accuracy = self.task.evaluate(self.model)
                        self.control.report(val_loss=held_out, val_accuracy=accuracy)

    def ending(self) -> tuple[float, float]:
        """Medians of held-out loss and accuracy at the end, or of what was reached."""
        losses, accuracies = zip(*(self._last or [self.task.evaluate(self.model)]), strict=True)
        return median(inf if isnan(loss) else loss for loss in losses), median(accuracies)

    def acts(self) -> Iterator[Act]:
        """What was decided."""
        if self.control is None:
            return
        first = self.case.watching.first_step(self.case.steps)
        for decision, result in self.control.history:
            yield Act.of(decision, result, self.control.topology, attached=first)

    def _attach(self, decider: DecisionPolicy) -> Control:
        return attach(
            self.model,
            self.optimizer,
            mode="autonomous",
            policy=decider,
            pace="lockstep",
            run=self.case.key,
            scheduler=self.scheduler,
            **self.case.watching.options(self.case.steps),
        )

    def _step(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(inputs), labels)
        loss.backward()
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return loss


def _decider(case: Case, policy: str, place: str | None) -> DecisionPolicy:
    if policy != ORACLE:
        return make_policy(policy)
    if case.kind is None:
        return OraclePolicy(0, None, ())
    # The controller counts from where it was attached.
    since = case.strike - case.watching.first_step(case.steps)
    return OraclePolicy(since, place, case.kind.cures)


def _accepted(case: Case, place: str | None) -> tuple[tuple[str, str | None], ...]:
    """What counts as right."""
    cures = () if case.kind is None else case.kind.cures
    return tuple((str(cure), None if cure is AdaptationType.RESTORE else place) for cure in cures)
