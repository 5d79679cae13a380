"""`python -m tamiyo.bench.growth`: does it pay to choose how new units begin?

The student and teacher of GradMax's authors (Evci et al., ICLR 2022, arXiv 2201.05125), as in the
notebook that they published: a teacher with 10 inputs, 10 rectified units and 10 outputs, a student
that begins with 5 units and is given one more five times, full-batch gradient descent on 1000
normally distributed inputs. Where the notebook has one teacher, here each seed draws its own.

Each growth is a decision that a live session of `tamiyo.host` applies. For the *forks* all ways to
begin are tried from the same state at each of the five growths of a student that grows at random;
for the *whole runs* each way has a student of its own.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn import functional

from tamiyo.bench.growth_live import INITIALIZATIONS, GrowingRun
from tamiyo.bench.growth_peer import gromo_missing, grow_with_gromo
from tamiyo.bench.growth_report import print_report, summary
from tamiyo.contracts import Outcome

__all__ = ["BASELINE", "Branch", "Study", "main", "study"]

INPUTS = OUTPUTS = TEACHER_UNITS = 10
STUDENT_UNITS = 5
GROWTHS = TEACHER_UNITS - STUDENT_UNITS
SAMPLES = 1000
INTERVAL = 200
"""Steps between two growths."""

BASELINE = INITIALIZATIONS[0]
NO_GROWTH, PEER = "no growth", "gromo"
ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "selu": nn.SELU,
}

Weights: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Of a student: shapes [units, 10] and [10, units]."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What one seed draws."""

    seed: int
    inputs: torch.Tensor
    targets: torch.Tensor
    student: Weights
    activation: type[nn.Module]

    @classmethod
    def drawn(cls, seed: int, activation: type[nn.Module]) -> "Problem":
        """Teacher's weights uniform in [-1, 1], student's by Glorot's scheme, no biases."""
        generator = torch.Generator().manual_seed(seed)

        def uniform(rows: int, columns: int, bound: float) -> torch.Tensor:
            return (2 * torch.rand(rows, columns, generator=generator) - 1) * bound

        teacher = uniform(TEACHER_UNITS, INPUTS, 1.0), uniform(OUTPUTS, TEACHER_UNITS, 1.0)
        inputs = torch.randn(SAMPLES, INPUTS, generator=generator)
        bound = (6 / (INPUTS + STUDENT_UNITS)) ** 0.5
        student = (
            uniform(STUDENT_UNITS, INPUTS, bound),
            uniform(OUTPUTS, STUDENT_UNITS, bound),
        )
        with torch.no_grad():
            targets = network(teacher, activation)(inputs)
        return cls(seed, inputs, targets, student, activation)

    def loss(self, model: nn.Module) -> torch.Tensor:
        """Mean squared error over all samples."""
        return functional.mse_loss(model(self.inputs), self.targets)


@dataclass(slots=True)
class Branch:
    """One way to go on from a state: what it came to, and a state on the way."""

    loss: float
    kept: Weights


@dataclass(slots=True)
class Study:
    """Final losses of one seed."""

    seed: int
    forks: list[dict[str, float]] = field(default_factory=list)
    """Per growth and method."""
    whole: dict[str, float] = field(default_factory=dict)
    """Per method, at the end of its own run."""


def network(weights: Weights, activation: type[nn.Module]) -> nn.Sequential:
    """A teacher or student with the given weights."""
    first, last = (nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights)
    with torch.no_grad():
        first.weight.copy_(weights[0])
        last.weight.copy_(weights[1])
    return nn.Sequential(first, activation(), last)


def go_on(
    problem: Problem,
    weights: Weights,
    method: str,
    *,
    warmup: int,
    steps: int,
    rate: float,
    keep: int,
) -> Branch:
    """Train a student, growing it by one unit on the way.

    Args:
        problem: The problem.
        weights: Where to begin.
        method: How the new unit begins: an initialisation of `widen`, or `NO_GROWTH` or `PEER`.
        warmup: Steps before the growth; their number seeds it.
        steps: Steps after it.
        rate: Learning rate.
        keep: Steps after the growth at which the weights are kept.

    Raises:
        RuntimeError: the host refused the decision or took the growth back.
    """
    model: nn.Module = network(weights, problem.activation)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), rate)
    run = GrowingRun(model, optimizer)
    for step in range(1, warmup + steps + 1):
        if step == warmup and method in INITIALIZATIONS:
            run.grow(("0",), 1, method, 1)
        optimizer.zero_grad()
        loss = problem.loss(model)
        loss.backward()
        optimizer.step()
        run.step(loss)
        if step == warmup and method == PEER:
            model, optimizer = grow_with_gromo(problem, model, rate)
        if step - warmup == keep:
            weights = _weights(model)
    if run.end() is Outcome.ROLLED_BACK:
        raise RuntimeError(f"the growth by {method} was taken back")
    with torch.no_grad():
        return Branch(problem.loss(model).item(), weights)


def study(
    seed: int,
    methods: Sequence[str],
    activation: type[nn.Module],
    *,
    steps: int = 499,
    rate: float = 0.05,
) -> Study:
    """All forks and whole runs of one seed.

    Args:
        seed: Draws teacher, data and student.
        methods: Ways to begin; the baseline must be among them.
        activation: Of teacher and student.
        steps: Steps after a growth.
        rate: Learning rate.
    """
    problem, found = Problem.drawn(seed, activation), Study(seed)
    for growth, forks in enumerate(_forks(problem, methods, steps, rate)):
        found.forks.append({method: branch.loss for method, branch in forks.items()})
        if growth == GROWTHS - 1:
            found.whole[BASELINE] = forks[BASELINE].loss
    for method in methods:
        if method in INITIALIZATIONS and method != BASELINE:
            found.whole[method] = _whole_run(problem, method, steps, rate)
    return found


def _forks(
    problem: Problem, methods: Sequence[str], steps: int, rate: float
) -> Iterator[dict[str, Branch]]:
    """Per growth what all methods make of the state that the baseline has come to."""
    weights = _before_growth(problem, rate)
    for growth in range(GROWTHS):
        warmup, keep = _warmup(problem, growth), INTERVAL - _warmup(problem, growth + 1)
        forks = {
            method: go_on(
                problem, weights, method, warmup=warmup, steps=steps, rate=rate, keep=keep
            )
            for method in methods
        }
        yield forks
        weights = forks[BASELINE].kept


def _whole_run(problem: Problem, method: str, steps: int, rate: float) -> float:
    """Final loss of a student that always grows in one way."""
    branch = Branch(torch.nan, _before_growth(problem, rate))
    for growth in range(GROWTHS):
        warmup, keep = _warmup(problem, growth), INTERVAL - _warmup(problem, growth + 1)
        after = keep if growth < GROWTHS - 1 else steps
        branch = go_on(
            problem, branch.kept, method, warmup=warmup, steps=after, rate=rate, keep=keep
        )
    return branch.loss


def _before_growth(problem: Problem, rate: float) -> Weights:
    first = INTERVAL - _warmup(problem, 0)
    return go_on(
        problem, problem.student, NO_GROWTH, warmup=0, steps=first, rate=rate, keep=first
    ).kept


def _warmup(problem: Problem, growth: int) -> int:
    """The host draws by the number of the step, so that it has to differ between growths."""
    return 2 + (GROWTHS * problem.seed + growth) % (INTERVAL // 2)


def _weights(model: nn.Module) -> Weights:
    first, last = (parameter.detach().clone() for parameter in model.parameters())
    return first, last


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tamiyo.bench.growth", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many, from 0 on (20)")
    parser.add_argument("--steps", type=int, default=499, help="steps after a growth (499)")
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate (0.05)")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    parser.add_argument("--json", action="store_true", help="print all losses as JSON")
    options = parser.parse_args(arguments)
    if options.seeds < 2 or options.steps <= INTERVAL:
        parser.error(f"at least 2 seeds and {INTERVAL + 1} steps")
    console = Console(stderr=True)
    missing = gromo_missing()
    if missing:
        console.print(f"Not compared with gromo: {missing}")
    methods = (*INITIALIZATIONS, NO_GROWTH, *(() if missing else (PEER,)))
    torch.set_num_threads(1)
    activation = ACTIVATIONS[options.activation]
    studies = [
        study(seed, methods, activation, steps=options.steps, rate=options.rate)
        for seed in track(range(options.seeds), "Growing", console=console)
    ]
    forks = [found.forks for found in studies]
    whole = [found.whole for found in studies]
    result = summary(forks, whole, BASELINE)
    if options.json:
        told: dict[str, Any] = {"options": vars(options), "forks": forks, "whole": whole}
        print(json.dumps(told | {"ratios": result}))
    else:
        print_report(Console(), result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
