"""`tamiyo/Training-v0` behind gymnasium's interfaces: hundreds of runs in one environment."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from tamiyo.envs.observations import Observation
from tamiyo.envs.training.episode import Episode, Quality, train_twins
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.graphs import most_edges, most_nodes
from tamiyo.envs.training.sampling import TrainingConfig, draw_scenarios
from tamiyo.envs.vectors import GraphVectorEnv, Ints, SingleEnv

__all__ = ["TrainingEnv", "TrainingVectorEnv"]

Result = TypeVar("Result")
KINDS = tuple(FaultKind)
MOST_CACHED = 65_536
"""Cohorts whose twins are remembered."""


class TrainingVectorEnv(GraphVectorEnv):
    """B real training runs, in cohorts that train as one tensor program each.

    A step applies the actions and trains every run for an interval. Episodes have a fixed length
    and terminate all at once; new ones begin within the same step, and the last observations are in
    `infos["final_obs"]`. The reward is the change of the objective: held-out accuracy beyond that
    of the twin that was left alone, minus the cost of adaptations. Actions that are not legal do
    nothing.

    `infos` has for every run, of the moment that was reached (before a reset): `accuracy`,
    `twin_accuracy`, `loss`, `twin_loss` (held-out), `adaptations`, `adapted`; and privileged,
    for imitation and evaluation only: `fault_kind` (index into `FaultKind`), `fault_layer` (linear
    layer, -1 for the run as a whole), `struck`.

    Args:
        num_envs: B.
        config: What episodes are made of.
        cohort_size: Runs that train in one program.
        pool: Number of different cohorts that are ever drawn; their twins are trained once. By
            default every cohort is new.
        device: Where to train.
        workers: Cohorts that train at a time, each in a thread of its own. What comes out does not
            depend on it. More than one pays where torch itself uses a single thread.
        render_mode: Only `None`.

    Raises:
        ValueError: fewer than one run, of a cohort or at a time.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        config: TrainingConfig | None = None,
        cohort_size: int = 32,
        pool: int | None = None,
        device: torch.device | str = "cpu",
        workers: int = 1,
        render_mode: None = None,
    ) -> None:
        if min(num_envs, cohort_size, workers) < 1:
            raise ValueError(f"{num_envs} runs in cohorts of {cohort_size}, {workers} workers")
        self.config = TrainingConfig() if config is None else config
        hidden = self.config.max_hidden
        super().__init__(num_envs, most_nodes(hidden), most_edges(hidden), render_mode)
        starts = range(0, num_envs, cohort_size)
        self._slices = [slice(start, min(start + cohort_size, num_envs)) for start in starts]
        self._pool, self._device = pool, torch.device(device)
        self._threads = ThreadPoolExecutor(workers) if workers > 1 else None
        self._twins: OrderedDict[tuple[int, int], Sequence[Quality]] = OrderedDict()
        self.episodes: list[Episode] = []
        """The cohorts' present episodes."""

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every run anew; a list of seeds counts as one seed."""
        self._reseed(seed, options)
        if seed is not None:
            self._twins.clear()
        self._base = int(self.np_random.integers(2**31))
        self._begin()
        return self._observe(), self._infos(np.zeros(self.num_envs, bool))

    def step(
        self, actions: Ints
    ) -> tuple[Observation, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        """One interval of every run; see `gymnasium.vector.VectorEnv.step`.

        Raises:
            RuntimeError: `reset` was not called yet.
        """
        if not self.episodes:
            raise RuntimeError("call reset() first")
        actions = np.asarray(actions, np.int64)
        before = self._gather("objective")
        adapted = self._map(Episode.step, self.episodes, [actions[rows] for rows in self._slices])
        rewards = self._gather("objective") - before
        infos = self._infos(np.concatenate(adapted))
        over = np.full(self.num_envs, self.episodes[0].over)
        observations = self._observe()
        if over.all():
            infos |= {"final_obs": observations, "_final_obs": over}
            self._begin()
            observations = self._observe()
        return observations, rewards, over, np.zeros_like(over), infos

    def oracle_actions(self) -> Ints:
        """[B, 3]: what one does who is told the faults."""
        return np.concatenate([episode.oracle() for episode in self.episodes])

    def close_extras(self, **_: Any) -> None:
        """End the threads; see `gymnasium.vector.VectorEnv.close`."""
        if self._threads is not None:
            self._threads.shutdown()

    def _begin(self) -> None:
        most = 2**31 if self._pool is None else self._pool
        sizes = [rows.stop - rows.start for rows in self._slices]
        draws = self.np_random.integers(most, size=len(sizes)).tolist()
        self.episodes = self._map(self._episode, draws, sizes)
        while len(self._twins) > MOST_CACHED:
            self._twins.popitem(last=False)

    def _episode(self, draw: int, hosts: int) -> Episode:
        random = np.random.default_rng([self._base, draw, hosts])
        scenarios, width = draw_scenarios(random, self.config, hosts)
        twins = self._twins.get((draw, hosts))
        if twins is None:
            twins = train_twins(scenarios, width, self.config, self._device)
            self._twins[draw, hosts] = twins
        return Episode(scenarios, width, self.config, twins, random, self._device)

    def _map(self, function: Callable[..., Result], *arguments: Iterable[Any]) -> list[Result]:
        run = map if self._threads is None else self._threads.map
        return list(run(function, *arguments))

    def _gather(self, name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([getattr(episode, name)() for episode in self.episodes])

    def _observe(self) -> Observation:
        parts = [episode.observation() for episode in self.episodes]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _infos(self, adapted: npt.NDArray[np.bool_]) -> dict[str, Any]:
        parts = [_facts(episode) for episode in self.episodes]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return joined | {"adapted": adapted}


class TrainingEnv(SingleEnv):
    """One training run.

    Args:
        config: What episodes are made of.
        pool: See `TrainingVectorEnv`.
        device: Where to train.
        render_mode: Only `None`.
    """

    def __init__(
        self,
        *,
        config: TrainingConfig | None = None,
        pool: int | None = None,
        device: torch.device | str = "cpu",
        render_mode: None = None,
    ) -> None:
        super().__init__(TrainingVectorEnv(1, config=config, pool=pool, device=device), render_mode)


def _facts(episode: Episode) -> dict[str, npt.NDArray[Any]]:
    faults = [scenario.fault for scenario in episode.scenarios]
    struck = [fault.step < episode.cohort.steps and fault.kind != KINDS[0] for fault in faults]
    return {
        "accuracy": episode.quality.accuracy,
        "twin_accuracy": episode.twin.accuracy,
        "loss": episode.quality.loss,
        "twin_loss": episode.twin.loss,
        "adaptations": episode.adaptations.copy(),
        "fault_kind": np.array([KINDS.index(fault.kind) for fault in faults]),
        "fault_layer": np.array([fault.layer for fault in faults]),
        "struck": np.array(struck),
    }
