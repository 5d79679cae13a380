"""Lessons from live runs of the fault benchmark: states, and what should have been done.

What should be done is known where it was measured to pay: each run is first made with nobody and
with the oracle beside it, and where the fault did no harm, or its cure won nothing back, the right
answer is to leave the run alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from tamiyo.bench.faults.cells import Cell, all_cells, healthy_cells, split_of
from tamiyo.bench.faults.cohort import ORACLE, Rows
from tamiyo.bench.faults.experiment import Plan, experiment
from tamiyo.bench.faults.live import accompany
from tamiyo.bench.faults.splits import Split
from tamiyo.bench.faults.validity import POINTS
from tamiyo.bench.live_training.tutor import Moment, Tutored
from tamiyo.bench.pools import run_jobs
from tamiyo.learn.imitation import Demonstrations
from tamiyo.learn.seeds import derive
from tamiyo.learn.segment_batch import pad
from tamiyo.learn.segments import unknown_targets
from tamiyo.policy import EnhancedTamiyoPolicyGNN, FallbackPolicy
from tamiyo.policy.actions import WHOLE_MODEL, Action

__all__ = ["MOST_KEPT", "Lesson", "give_lessons", "lessons_for", "to_demonstrations"]

Count: TypeAlias = Callable[[int, int], None]
"""Is told how many are done, and how many there are."""
KEPT = 2
"""States of a run that are kept of those with something to do, and of those without."""
MOST_KEPT = 2 * KEPT
PATIENCE = 0.2
"""Probability, at each state, that an expert who waits decides."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One run to learn from.

    Attributes:
        cell: What is run.
        seed: Of the run.
        pays: Whether its fault does harm that the cure undoes.
        checkpoint: Of the pupil.
        led: Whether the expert decides, and not the pupil.
        patience: States that the expert lets pass.
    """

    cell: Cell
    seed: int
    pays: bool
    checkpoint: Path
    led: bool
    patience: int


def lessons_for(
    split: Split,
    runs: int,
    checkpoint: Path,
    path: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    report: Count = lambda _done, _total: None,
) -> list[Lesson]:
    """Which runs of a split there are to learn from: as many healthy as faulty ones.

    Args:
        split: Of the cells.
        runs: To learn from.
        checkpoint: Of the pupil, who decides in half of them.
        path: File of the runs that say where a cure pays; what it holds is not made again.
        seed: Everything random follows from it.
        workers: Processes.
        report: Is told how many of those runs are done, and how many there are.
    """
    cells = [cell for cell in all_cells() if split_of(cell) == split and _treatable(cell)]
    healthy = [cell for cell in healthy_cells() if split_of(cell) == split]
    random = np.random.default_rng(derive(seed, "lessons"))
    faulty = _spread(cells, runs // 2, random)
    plan = Plan(cells, 1 + max(number for _, number in faulty), healthy, 0)
    tell = _counting(len(plan.jobs([ORACLE])), report)
    rows = Rows(experiment(plan, [ORACLE], path, workers=workers, on_row=lambda _row: tell()))
    paid = {
        (case.row.cell, case.row.seed)
        for case in rows.faulty(ORACLE)
        if case.valid and case.gained >= POINTS
    }
    found = []
    for cell, number in (*faulty, *_spread(healthy, runs - len(faulty), random)):
        led = random.random() < 0.5
        patience = int(random.geometric(PATIENCE)) if random.random() < 0.5 else 0
        pays = (cell.key, number) in paid
        found.append(Lesson(cell, number, pays, checkpoint, led, patience))
    return found


def give_lessons(
    lessons: Sequence[Lesson],
    workers: int = 1,
    report: Count = lambda _done, _total: None,
) -> Demonstrations:
    """Make the runs, and keep a few states of each.

    Args:
        lessons: The runs.
        workers: Processes.
        report: Is told how many runs are done, and how many there are.

    Raises:
        RuntimeError: something went wrong in a run.
    """
    kept: dict[int, Sequence[tuple[Moment, float]]] = {}
    tell = _counting(len(lessons), report)

    def keep(place: int, moments: Sequence[tuple[Moment, float]]) -> None:
        kept[place] = moments
        tell()

    run_jobs(_give, lessons, workers, keep)
    found = [pair for place in sorted(kept) for pair in kept[place]]
    return to_demonstrations([moment for moment, _ in found], [weight for _, weight in found])


def to_demonstrations(moments: Sequence[Moment], weights: Sequence[float]) -> Demonstrations:
    """Moments as a network learns from them; where several layers are right, one of them is drawn.

    What then became of the runs is not looked at: all other heads learn nothing.
    """
    random = np.random.default_rng(derive(0, "targets"))
    targets = [int(random.choice(one.rows)) if one.rows else WHOLE_MODEL for one in moments]
    return Demonstrations(
        pad([one.observation for one in moments]),
        Action(
            torch.tensor([one.type is not None for one in moments]),
            torch.tensor(targets),
            torch.tensor([one.type or 0 for one in moments]),
        ),
        torch.tensor(weights, dtype=torch.float32),
        torch.from_numpy(unknown_targets(len(moments))),
        torch.full((len(moments),), torch.nan),
    )


def _give(lesson: Lesson) -> Sequence[tuple[Moment, float]]:
    """States of one run, each with its share of the run."""
    network = EnhancedTamiyoPolicyGNN.from_pretrained(lesson.checkpoint)
    pupil = None if lesson.led else FallbackPolicy(network)
    tutored = Tutored(network.offered, pupil, lesson.patience, harmless=not lesson.pays)
    row = accompany(lesson.cell, "tutored", tutored, lesson.seed)
    if row.problems:
        raise RuntimeError(f"{lesson.cell.key}, seed {lesson.seed}: {row.problems[0]}")
    random = np.random.default_rng(derive(lesson.seed, lesson.cell.key))
    found = []
    for wanted in (True, False):
        those = [one for one in tutored.moments if (one.type is not None) is wanted]
        some = random.choice(len(those), min(KEPT, len(those)), replace=False)
        share = len(those) / max(1, len(some)) / len(tutored.moments)
        found += [(those[place], share) for place in sorted(some.tolist())]
    return found


def _counting(total: int, report: Count) -> Callable[[], None]:
    """Reports one more each time."""
    done = count(1)
    return lambda: report(next(done), total)


def _spread(
    cells: Sequence[Cell], runs: int, random: np.random.Generator
) -> list[tuple[Cell, int]]:
    """So many runs, with as few seeds as there can be: of the last seed some cells by lot."""
    whole, rest = divmod(runs, len(cells))
    some = random.choice(len(cells), rest, replace=False)
    return [
        *((cell, number) for number in range(whole) for cell in cells),
        *((cells[place], whole) for place in sorted(some.tolist())),
    ]


def _treatable(cell: Cell) -> bool:
    fault = cell.kind_of_fault
    return fault is not None and bool(fault.cures)
