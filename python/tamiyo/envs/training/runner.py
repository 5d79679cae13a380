"""Plays the episodes of some cohorts, and writes down what there is to see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tamiyo.envs.training.board import Board, Fields
from tamiyo.envs.training.episode import Episode
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.sampling import CohortPlan, TrainingConfig
from tamiyo.learn.rewards import COMPONENTS

__all__ = ["FACTS", "Runner", "Task"]

KINDS = tuple(FaultKind)

FACTS: Fields = {
    "accuracy": ((), np.float64),
    "twin_accuracy": ((), np.float64),
    "quality": ((), np.float64),
    "twin_quality": ((), np.float64),
    "levels": ((len(COMPONENTS),), np.float64),
    "loss": ((), np.float64),
    "twin_loss": ((), np.float64),
    "adaptations": ((), np.float64),
    "adapted": ((), np.bool_),
    "fault_kind": ((), np.int64),
    "fault_layer": ((), np.int64),
    "struck": ((), np.bool_),
    "step": ((), np.int64),
}
"""What `infos` says of every run."""


@dataclass(frozen=True, slots=True)
class Task:
    """An episode of one cohort."""

    rows: slice
    """Where its runs are on the board."""
    plan: CohortPlan
    random: np.random.Generator
    """Draws the new weights of adaptations."""


class Runner:
    """The cohorts that one process trains.

    Args:
        board: Has the observation, `FACTS`, `objective`, `actions` and `oracle` of every run.
        config: What episodes are made of.
        device: Where to train.
    """

    def __init__(self, board: Board, config: TrainingConfig, device: torch.device) -> None:
        self.board, self._config, self._device = board, config, device
        self._rows: Sequence[slice] = ()
        self.episodes: Sequence[Episode] = ()
        """Present ones."""

    def begin(self, tasks: Sequence[Task]) -> None:
        """Begin new episodes in place of the present ones."""
        self._rows = [task.rows for task in tasks]
        self.episodes = [
            Episode(task.plan, self._config, task.random, self._device) for task in tasks
        ]
        for rows, episode in zip(self._rows, self.episodes, strict=True):
            self._write(rows, episode, np.zeros(len(episode.scenarios), bool))

    def step(self) -> None:
        """Do what `actions` says and train an interval."""
        for rows, episode in zip(self._rows, self.episodes, strict=True):
            adapted = episode.step(self.board["actions"][rows])
            self._write(rows, episode, adapted)

    def oracle(self) -> None:
        """Write what one does who is told the faults."""
        for rows, episode in zip(self._rows, self.episodes, strict=True):
            self.board["oracle"][rows] = episode.oracle()

    def _write(self, rows: slice, episode: Episode, adapted: npt.NDArray[np.bool_]) -> None:
        columns = episode.observation() | _facts(episode)
        columns |= {"adapted": adapted, "objective": episode.objective()}
        for name, column in columns.items():
            self.board[name][rows] = column


def _facts(episode: Episode) -> dict[str, npt.NDArray[Any]]:
    faults = [scenario.fault for scenario in episode.scenarios]
    struck = [fault.step < episode.cohort.steps and fault.kind != KINDS[0] for fault in faults]
    return {
        "accuracy": episode.quality.accuracy,
        "twin_accuracy": episode.twin.accuracy,
        "quality": episode.worth.quality,
        "twin_quality": episode.worth.twin_quality,
        "levels": episode.worth.system.levels,
        "loss": episode.quality.loss,
        "twin_loss": episode.twin.loss,
        "adaptations": episode.adaptations,
        "fault_kind": np.array([KINDS.index(fault.kind) for fault in faults]),
        "fault_layer": np.array([fault.layer for fault in faults]),
        "struck": np.array(struck),
        "step": np.full(len(faults), episode.cohort.steps),
    }
