"""One live run: a plain training loop, and whoever is beside it."""

import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from hashlib import sha256
from math import inf, isfinite, isnan
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tamiyo.bench.faults.cells import Cell, split_of
from tamiyo.bench.faults.companion import POLICIES, Companion, Oracle, Subject
from tamiyo.bench.faults.fault import Place, Told
from tamiyo.bench.faults.recipe import Recipe, Strike
from tamiyo.bench.faults.rows import Evaluation, FaultAct, FaultRow
from tamiyo.bench.hearing import heard
from tamiyo.host import TrainingRun
from tamiyo.host.checksums import run_checksum

__all__ = ["EVALUATIONS", "accompany", "play", "settings_of"]

EVALUATIONS = 40
"""In the course of a run."""
LAST, EVERY = 5, 10
"""How many evaluations, so many steps apart, count at the end: a single one may fall on a spike."""


def play(cell: Cell, policy: str, seed: int) -> FaultRow:
    """Make one run; the same cell, policy and seed give the same row, but for its time.

    Raises:
        ValueError: there is no such policy.
        MissingExtraError: the package of the data is not installed.
    """
    return accompany(cell, policy, POLICIES.find(policy).make(), seed)


def accompany(cell: Cell, policy: str, companion: Companion, seed: int) -> FaultRow:
    """Make one run with somebody beside it.

    Runs of one seed and architecture have the same first weights and the same order of data,
    whoever is beside them, as far as the fault leaves them the same.

    Args:
        cell: What is run.
        policy: What the companion is called in the row.
        companion: Who is beside it.
        seed: Of first weights and the order of the data.

    Raises:
        MissingExtraError: the package of the data is not installed.
    """
    torch.set_num_threads(1)
    problems, recipe = list[str](), cell.recipe()
    with torch.random.fork_rng(devices=[]), heard(problems):
        torch.manual_seed(seed)
        # A name from which nothing follows: policies see it.
        name = sha256(f"{cell.key}|{seed}".encode()).hexdigest()[:16]
        loop = _Loop(recipe, seed, name)
        fault = cell.kind_of_fault
        told = Told() if fault is None else fault.told(recipe, loop.subject.model)
        if isinstance(companion, Oracle):
            companion.tell(told)
        started = time.process_time()
        try:
            loop.run(companion)
        except Exception:
            problems.append(traceback.format_exc())
        seconds = time.process_time() - started
        accuracy = loop.final_accuracy()
        checksum = run_checksum(TrainingRun(loop.subject.model, loop.subject.optimizer))
    return FaultRow(
        fault=cell.fault,
        architecture=cell.architecture,
        data=cell.data,
        seed=seed,
        policy=policy,
        version=companion.version,
        split=split_of(cell),
        settings=settings_of(recipe),
        onset=told.onset,
        culprits=told.places,
        cures=tuple((str(cure.adaptation), cure.place is Place.RUN) for cure in told.cures),
        evaluations=tuple(loop.evaluations),
        acts=tuple(FaultAct(**asdict(act)) for act in companion.acts()),
        accuracy=accuracy,
        checksum=checksum,
        passes=companion.passes,
        problems=tuple(problems),
        cpu_seconds=seconds,
    )


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a run was built from, as plain values."""
    network = asdict(recipe.network)
    return {
        **{name: list(x) if isinstance(x, tuple) else x for name, x in network.items()},
        "optimizer": recipe.optimizer,
        "learning_rate": recipe.learning_rate,
        "momentum": recipe.momentum,
        "batch_size": recipe.batch_size,
        "steps": recipe.steps,
        "steps_per_epoch": recipe.steps_per_epoch,
    }


class _Loop:
    """A training loop as a user writes it, in which something may go wrong.

    Args:
        recipe: What is run; the first weights come from torch's global random state.
        seed: Of the order of the data.
        name: Of the run.
    """

    def __init__(self, recipe: Recipe, seed: int, name: str) -> None:
        model = recipe.make_model()
        optimizer = recipe.make_optimizer(model)
        self.subject = Subject(model, optimizer, recipe.steps, name)
        self.evaluations: list[Evaluation] = []
        self._recipe, self._seed = recipe, seed
        self._last: list[float] = []
        self._strike = recipe.strike or Strike(recipe.steps)

    def run(self, companion: Companion) -> None:
        """Train to the end."""
        subject, recipe = self.subject, self._recipe
        often = max(1, recipe.steps // EVALUATIONS)
        last = range(recipe.steps, recipe.steps - LAST * EVERY, -EVERY)
        with ExitStack() as ended:
            ended.callback(companion.close)
            companion.attach(subject)
            for inputs, labels in self._batches():
                loss = self._step(inputs, labels, companion)
                companion.after_step(loss)
                if subject.step in last:
                    self._last.append(self._evaluate()[1])
                if subject.step % often == 0:
                    self._report(companion)

    def final_accuracy(self) -> float:
        """The median at the end, or what was reached by a run that failed before."""
        return median(self._last or [self._evaluate()[1]])

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Those of the whole run, after what the fault does to them."""
        batches, strike = self._recipe.batches(self._seed), self._strike
        for step in range(self._recipe.steps):
            inputs, labels = next(batches)
            if step == strike.step:
                strike.change(self.subject.model, self.subject.optimizer)
                inputs = strike.batch(inputs)
            yield self._shown(inputs, step), labels

    def _step(self, inputs: Tensor, labels: Tensor, companion: Companion) -> Tensor:
        subject, strike = self.subject, self._strike
        subject.optimizer.zero_grad()
        loss = self._recipe.loss(subject.model(inputs), labels)
        loss.backward()
        if subject.step == strike.step and strike.gradient_factor != 1:
            for parameter in subject.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(strike.gradient_factor)
        companion.before_step()
        subject.optimizer.step()
        subject.step += 1
        return loss

    def _report(self, companion: Companion) -> None:
        loss, accuracy = self._evaluate()
        known = loss if isfinite(loss) else None
        self.evaluations.append(Evaluation(self.subject.step, accuracy, known))
        companion.evaluated(loss, accuracy)

    def _evaluate(self) -> tuple[float, float]:
        """Loss and accuracy on the held-out data, in evaluation mode."""
        model, (inputs, labels) = self.subject.model, self._recipe.data.held_out
        was_training = model.training
        model.eval()
        with torch.no_grad():
            outputs = model(self._shown(inputs, self.subject.step))
            loss = functional.cross_entropy(outputs, labels).item()
            accuracy = (outputs.argmax(1) == labels).float().mean().item()
        model.train(was_training)
        return inf if isnan(loss) else loss, accuracy

    def _shown(self, inputs: Tensor, step: int) -> Tensor:
        return self._strike.inputs(inputs) if step >= self._strike.step else inputs
