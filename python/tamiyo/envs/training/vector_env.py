"""`tamiyo/Training-v0` behind gymnasium's interfaces: hundreds of runs in one environment."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tamiyo.envs.observations import Observation, observation_space
from tamiyo.envs.training.board import Board, Field, Fields
from tamiyo.envs.training.episode import Episode
from tamiyo.envs.training.graphs import most_edges, most_nodes
from tamiyo.envs.training.runner import FACTS, Runner, Task
from tamiyo.envs.training.sampling import TrainingConfig, draw_cohort
from tamiyo.envs.training.workers import Workers
from tamiyo.envs.vectors import GraphVectorEnv, Ints, SingleEnv

__all__ = ["TrainingEnv", "TrainingVectorEnv"]


class TrainingVectorEnv(GraphVectorEnv):
    """B real training runs, in cohorts that train as one tensor program each.

    A step applies the actions and trains every run for an interval. Episodes have a fixed length
    and terminate all at once; new ones begin within the same step, and the last observations are in
    `infos["final_obs"]`. The reward is the change of the objective of `tamiyo.learn.rewards` beside
    a twin that was left alone, minus the price of each adaptation. Actions that are not legal do
    nothing.

    `infos` has for every run, of the moment that was reached (before a reset): held-out `accuracy`,
    `twin_accuracy`, `loss`, `twin_loss`, and `quality` and `twin_quality`, which are accuracy on a
    scale from chance to perfect; `levels` [5], the components of the objective, unweighted;
    `adaptations`, `adapted`; and privileged, for imitation and evaluation only: `fault_kind` (index
    into `FaultKind`), `fault_layer` (linear layer, -1 for the run as a whole), `struck`; `step`,
    the optimiser steps so far.

    Args:
        num_envs: B.
        config: What episodes are made of.
        max_hidden: In place of the configuration's.
        cohort_size: Runs that train in one program.
        device: Where to train.
        workers: Processes that train cohorts; with one it is this process itself. What comes out
            does not depend on it. A script with more than one needs the guard
            `if __name__ == "__main__":` (see `tamiyo.envs.training.workers`).
        render_mode: Only `None`.

    Raises:
        ValueError: fewer than one run, of a cohort or process.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        config: TrainingConfig | None = None,
        max_hidden: int | None = None,
        cohort_size: int = 32,
        device: torch.device | str = "cpu",
        workers: int = 1,
        render_mode: None = None,
    ) -> None:
        if min(num_envs, cohort_size, workers) < 1:
            raise ValueError(f"{num_envs} runs in cohorts of {cohort_size}, {workers} workers")
        self.config = TrainingConfig() if config is None else config
        if max_hidden is not None:
            self.config = replace(self.config, max_hidden=max_hidden)
        hidden = self.config.max_hidden
        super().__init__(num_envs, most_nodes(hidden), most_edges(hidden), render_mode)
        self._spaces = observation_space(most_nodes(hidden), most_edges(hidden)).spaces
        starts = range(0, num_envs, cohort_size)
        self._slices = [slice(start, min(start + cohort_size, num_envs)) for start in starts]
        self._moment = -1
        fields, place = self._fields(), torch.device(device)
        self._crew: Workers | Runner
        if (count := min(workers, len(self._slices))) > 1:
            self._crew = Workers(count, fields, num_envs, self.config, place)
        else:
            memory = bytearray(Board.size(fields, num_envs))
            self._crew = Runner(Board(fields, num_envs, memory), self.config, place)

    @property
    def episodes(self) -> Sequence[Episode]:
        """The cohorts' present episodes, if they are trained in this process."""
        return self._crew.episodes if isinstance(self._crew, Runner) else ()

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every run anew; a list of seeds counts as one seed."""
        self._reseed(seed, options)
        self._base = int(self.np_random.integers(2**31))
        self._begin()
        return self._observe(), self._infos()

    def step(
        self, actions: Ints
    ) -> tuple[Observation, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        """One interval of every run; see `gymnasium.vector.VectorEnv.step`.

        Raises:
            RuntimeError: `reset` was not called yet, or a worker failed, after which nothing works.
        """
        if self._moment < 0:
            raise RuntimeError("call reset() first")
        board = self._crew.board
        board["actions"][:] = actions
        before = board["objective"].copy()
        self._crew.step()
        self._moment += 1
        rewards, infos, observations = board["objective"] - before, self._infos(), self._observe()
        over = np.full(self.num_envs, self._moment == self.config.decisions)
        if over.all():
            infos |= {"final_obs": observations, "_final_obs": over}
            self._begin()
            observations = self._observe()
        return observations, rewards, over, np.zeros_like(over), infos

    def oracle_actions(self) -> Ints:
        """[B, 3]: what one does who is told the faults."""
        self._crew.oracle()
        return self._crew.board["oracle"].copy()

    def close_extras(self, **_: Any) -> None:
        """End the workers; see `gymnasium.vector.VectorEnv.close`."""
        if isinstance(self._crew, Workers):
            self._crew.close()

    def _fields(self) -> Fields:
        """What is on the board for each run."""
        action = ((3,), np.int64)
        columns: dict[str, Field] = {
            "objective": ((), np.float64),
            "actions": action,
            "oracle": action,
        }
        for name, space in self._spaces.items():
            columns[name] = space.shape or (), np.dtype(space.dtype)
        return {**columns, **FACTS}

    def _begin(self) -> None:
        draws = self.np_random.integers(2**31, size=len(self._slices)).tolist()
        pairs = zip(draws, self._slices, strict=True)
        self._crew.begin([self._task(draw, rows) for draw, rows in pairs])
        self._moment = 0

    def _task(self, draw: int, rows: slice) -> Task:
        hosts = rows.stop - rows.start
        random = np.random.default_rng([self._base, draw, hosts])
        return Task(rows, draw_cohort(random, self.config, hosts), random)

    def _observe(self) -> Observation:
        return {name: self._crew.board[name].copy() for name in self._spaces}

    def _infos(self) -> dict[str, Any]:
        return {name: self._crew.board[name].copy() for name in FACTS}


class TrainingEnv(SingleEnv):
    """One training run.

    Args:
        config: What episodes are made of.
        max_hidden: In place of the configuration's.
        device: Where to train.
        render_mode: Only `None`.
    """

    def __init__(
        self,
        *,
        config: TrainingConfig | None = None,
        max_hidden: int | None = None,
        device: torch.device | str = "cpu",
        render_mode: None = None,
    ) -> None:
        one = TrainingVectorEnv(1, config=config, max_hidden=max_hidden, device=device)
        super().__init__(one, render_mode)
