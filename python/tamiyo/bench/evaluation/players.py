"""Who plays: a policy as the evaluation sees it, and those that need no network.

In an evaluation a *cohort* is one policy on all runs. Some players look at the runs behind the
observations (`TrainingVectorEnv.episodes`), so that the environment must train them in this process
(`workers=1`).
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import AdaptationType
from tamiyo.envs.observations import Observation
from tamiyo.envs.training.vector_env import TrainingVectorEnv
from tamiyo.graph.schema import ACTIONS

__all__ = ["Answer", "GrowingPlayer", "IdlePlayer", "OraclePlayer", "Player", "RandomPlayer"]

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Bools: TypeAlias = npt.NDArray[np.bool_]

WIDEN = ACTIONS.index(AdaptationType.WIDEN)


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """What a player does with B runs, and how sure it is; what it does not say is `None`."""

    actions: Ints
    """[B, 3]: adapt?, target (N is the run as a whole), index into `ACTIONS`."""
    proposed: Bools | None = None
    """[B]: whether it would act if uncertainty did not hold it back; by default, if it acts."""
    probability: Floats | None = None
    """[B]: calibrated probability that an adaptation helps."""
    confidence: Floats | None = None
    """[B]: what the threshold is held against."""
    uncertainty: Floats | None = None
    """[B], in [0, 1]."""


class Player(Protocol):
    """Decides for all runs of an environment, one episode after another."""

    @property
    def name(self) -> str:
        """Of the cohort."""

    def begin(self, env: TrainingVectorEnv, seed: int, /) -> None:
        """A new episode has begun; whatever is random follows from the seed."""

    def act(self, env: TrainingVectorEnv, observation: Observation, /) -> Answer:
        """Called once for every decision of the episode, in order."""


class IdlePlayer:
    """Never does anything."""

    name = "no-op"

    def begin(self, env: TrainingVectorEnv, seed: int) -> None:
        """Nothing to prepare."""

    def act(self, env: TrainingVectorEnv, _observation: Observation) -> Answer:
        """No action."""
        return Answer(np.zeros((env.num_envs, 3), np.int64))


class OraclePlayer:
    """Is told the faults."""

    name = "oracle"

    def begin(self, env: TrainingVectorEnv, seed: int) -> None:
        """Nothing to prepare."""

    def act(self, env: TrainingVectorEnv, _observation: Observation) -> Answer:
        """The environment's privileged actions."""
        return Answer(env.oracle_actions())


class RandomPlayer:
    """One legal action in every run, at a decision drawn at random."""

    name = "random"

    def begin(self, env: TrainingVectorEnv, seed: int) -> None:
        """Draw the decisions."""
        self._random = np.random.default_rng(seed)
        self._when = self._random.integers(env.config.decisions, size=env.num_envs)
        self._moment = 0

    def act(self, env: TrainingVectorEnv, observation: Observation) -> Answer:
        """Any of the legal actions with the same probability; none where there is none."""
        actions = np.zeros((env.num_envs, 3), np.int64)
        for run in np.flatnonzero(self._when == self._moment).tolist():
            legal = _legal(observation, run)
            if len(legal):
                actions[run] = 1, *legal[self._random.integers(len(legal))]
        self._moment += 1
        return Answer(actions)


class GrowingPlayer:
    """Widens the narrowest layer that can be widened, every so many decisions.

    Whoever decides when and where to grow has to be better than this.

    Args:
        every: Decisions from one growth to the next.
    """

    name = "growth"

    def __init__(self, every: int = 5) -> None:
        self.every = every

    def begin(self, _env: TrainingVectorEnv, _seed: int) -> None:
        """Count from the start."""
        self._moment = 0

    def act(self, env: TrainingVectorEnv, observation: Observation) -> Answer:
        """Growths where one is due and legal."""
        actions = np.zeros((env.num_envs, 3), np.int64)
        self._moment += 1
        if self._moment % self.every:
            return Answer(actions)
        parts = [one.graphs.widths(one.cohort) for one in env.episodes]
        able = observation["action_mask"][:, :, WIDEN].astype(bool)
        widths = np.where(able, np.concatenate(parts), np.iinfo(np.int64).max)
        rows = np.flatnonzero(able.any(axis=1))
        actions[rows, 0] = 1
        actions[rows, 1] = widths[rows].argmin(axis=1)
        actions[rows, 2] = WIDEN
        return Answer(actions)


def _legal(observation: Observation, run: int) -> Ints:
    """[n, 2]: targets and types that are legal for a run."""
    whole = observation["model_action_mask"][run][None]
    return np.argwhere(np.concatenate([observation["action_mask"][run], whole]))
