"""What the environments have in common: many runs in one array, and one run by itself."""

from typing import Any, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tamiyo.envs.observations import Observation, action_space, observation_space

__all__ = ["GraphVectorEnv", "Ints", "SingleEnv"]

Ints: TypeAlias = npt.NDArray[np.int64]


class GraphVectorEnv(VectorEnv[Observation, Ints, npt.NDArray[Any]]):
    """B runs whose observations are graphs; a finished one starts anew within the same step.

    Args:
        num_envs: B.
        nodes: Most nodes of a graph.
        edges: Most directed edges of a graph.
        render_mode: Only `None`.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 - gymnasium's declaration

    def __init__(self, num_envs: int, nodes: int, edges: int, render_mode: None) -> None:
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.single_observation_space = observation_space(nodes, edges)
        self.single_action_space = action_space(nodes)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _reseed(self, seed: int | list[int | None] | None, options: dict[str, Any] | None) -> None:
        """Seed the draws for a reset; a list of seeds counts as one seed."""
        super().reset(seed=None if isinstance(seed, list) else seed, options=options)
        if isinstance(seed, list):
            words = [0 if word is None else word + 1 for word in seed]
            self._np_random = np.random.default_rng(words)


class SingleEnv(gymnasium.Env[Observation, Ints]):
    """One run; a vector of one, unpacked.

    Args:
        one: The vector.
        render_mode: Only `None`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's declaration

    def __init__(self, one: GraphVectorEnv, render_mode: None) -> None:
        self._one = one
        self.render_mode = render_mode
        self.observation_space = one.single_observation_space
        self.action_space = one.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        observations, infos = self._one.reset(seed=seed, options=options)
        return _first(observations), _first(infos)

    def step(self, action: Ints) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        observations, rewards, terminated, truncated, infos = self._one.step(action[None])
        final = infos.pop("final_obs", observations)
        infos.pop("_final_obs", None)
        return (
            _first(final),
            float(rewards[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            _first(infos),
        )


def _first(columns: dict[str, Any]) -> dict[str, Any]:
    return {name: column[0] for name, column in columns.items()}
