"""Every cohort plays the same runs: one whole episode each, from the same environment seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from tamiyo.bench.evaluation.lineup import Lineup
from tamiyo.bench.evaluation.players import Bools, Floats, Player
from tamiyo.bench.evaluation.rows import NEVER, Rows
from tamiyo.bench.evaluation.splits import Split
from tamiyo.bench.pools import run_jobs
from tamiyo.envs.observations import Observation
from tamiyo.envs.training.faults import WHOLE_RUN
from tamiyo.envs.training.vector_env import TrainingVectorEnv

__all__ = ["PROGRAM", "Job", "Played", "play", "play_all"]

Played: TypeAlias = dict[str, Rows]
"""Rows by the name of the cohort."""

PROGRAM = 32
"""Most runs in one tensor program: they share width, activation and optimiser."""


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation seed of one split."""

    split: Split
    index: int
    hosts: int
    lineup: Lineup


def play(job: Job) -> Played:
    """All cohorts on the runs of one seed.

    Raises:
        RuntimeError: the environment did not start all cohorts with the same runs.
    """
    torch.set_num_threads(1)
    seed, size = job.split.seed(job.index), min(job.hosts, PROGRAM)
    # The players that look at the runs need them in this process.
    env = TrainingVectorEnv(job.hosts, config=job.split.config, cohort_size=size, workers=1)
    start, played = env.reset(seed=seed)[0], dict[str, Rows]()
    curable: Any = None
    for player in job.lineup.players():
        course = _Course(env, player, seed)
        if not _same(start, course.observation):
            raise RuntimeError("the environment did not start the same runs again")
        fixed = _fixed(env, job.index)
        course.follow()
        # The first player leaves the runs alone.
        curable = course.due.any(axis=1) if curable is None else curable
        played[player.name] = course.rows(fixed | {"curable": curable})
    env.close()
    return played


def play_all(
    jobs: Sequence[Job], workers: int = 1, on_done: Callable[[Job], None] = lambda _job: None
) -> list[Played]:
    """Some seeds, in their order whatever the number of workers.

    Args:
        jobs: What to play.
        workers: Processes; with one, everything happens in this one.
        on_done: Called when a job is done.
    """
    results: dict[int, Played] = {}

    def keep(place: int, played: Played) -> None:
        results[place] = played
        on_done(jobs[place])

    run_jobs(play, jobs, workers, keep)
    return [results[place] for place in range(len(jobs))]


def _fixed(env: TrainingVectorEnv, index: int) -> dict[str, Any]:
    """What is known of the runs before anybody plays."""
    scenarios = [scenario for episode in env.episodes for scenario in episode.scenarios]
    return {
        "seed": np.full(len(scenarios), index),
        "host": np.arange(len(scenarios)),
        "data": np.array([scenario.spec.data for scenario in scenarios]),
    }


def _same(one: Observation, other: Observation) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


class _Course:
    """One episode of one player, from the beginning."""

    def __init__(self, env: TrainingVectorEnv, player: Player, seed: int) -> None:
        self._env, self._player = env, player
        self.observation, self._infos = env.reset(seed=seed)
        self._moments: list[dict[str, Any]] = []
        self._objective = np.zeros(env.num_envs)
        player.begin(env, seed)

    def follow(self) -> None:
        """Play to the end."""
        for _ in range(self._env.config.decisions):
            self._decide()

    @property
    def due(self) -> Any:
        """[R, T], see `Rows`."""
        return self._series("due")

    def rows(self, fixed: dict[str, Any]) -> Rows:
        """What was seen; `fixed` are the columns that were known before."""
        infos, struck = self._infos, self._series("struck")
        return Rows(
            **fixed,
            fault=infos["fault_kind"],
            layer=infos["fault_layer"],
            struck=np.where(struck.any(axis=1), struck.argmax(axis=1), NEVER),
            objective=self._objective,
            accuracy=infos["accuracy"],
            twin_accuracy=infos["twin_accuracy"],
            **{name: self._series(name) for name in self._moments[0] if name != "struck"},
        )

    def _decide(self) -> None:
        env, observation = self._env, self.observation
        struck, step = self._infos["struck"], self._infos["step"]
        due = env.oracle_actions()[:, 0] == 1
        answer = self._player.act(env, observation)
        self.observation, rewards, _, _, self._infos = env.step(answer.actions)
        self._objective += rewards
        acted, target = self._infos["adapted"], answer.actions[:, 1]
        nodes = observation["node_mask"].shape[1]
        self._moments.append(
            {
                "struck": struck,
                "step": step,
                "due": due,
                "acted": acted,
                "proposed": acted if answer.proposed is None else answer.proposed,
                "target": np.where(target == nodes, WHOLE_RUN, target),
                "type": answer.actions[:, 2],
                "probability": _said(answer.probability, acted),
                "confidence": _said(answer.confidence, acted),
                "uncertainty": _said(answer.uncertainty, acted),
            }
        )

    def _series(self, name: str) -> Any:
        return np.stack([moment[name] for moment in self._moments], axis=1)


def _said(values: Floats | None, like: Bools) -> Floats:
    return np.full(like.shape, np.nan) if values is None else values
