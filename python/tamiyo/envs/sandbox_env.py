"""`tamiyo/Sandbox-v0`: the sandbox process as a gymnasium environment, many runs in one array."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import AdaptationType
from tamiyo.envs.observations import Observation
from tamiyo.envs.sandbox import DORMANT, EXPLODING, FAULTS, NONE, RATE, Rules, optimal_actions
from tamiyo.envs.vectors import GraphVectorEnv, Ints, SingleEnv
from tamiyo.graph.schema import (
    ACTIONS,
    EDGE_COLUMNS,
    EDGE_DIM,
    GLOBAL_COLUMNS,
    GLOBAL_DIM,
    NODE_COLUMNS,
    NODE_DIM,
    Column,
    layer_type_index,
)

__all__ = ["SandboxEnv", "SandboxVectorEnv"]

MIN_LAYERS, MAX_LAYERS = 3, 6
LAYER_ACTIONS = (
    AdaptationType.REINITIALIZE,
    AdaptationType.CLIP_GRADIENTS,
    AdaptationType.CHANGE_ACTIVATION,
)
MODEL_ACTIONS = (AdaptationType.SCALE_LEARNING_RATE, AdaptationType.RESTORE)


def _place(columns: tuple[Column, ...], name: str) -> int:
    return [column.name for column in columns].index(name)


DEAD, GRADIENT, SATURATION, DEPTH = (
    _place(NODE_COLUMNS, name) for name in ("dead_ratio", "gradient_norm", "saturation", "depth")
)
DIRECTION = _place(EDGE_COLUMNS, "direction")
LEARNING_RATE, PROGRESS = (_place(GLOBAL_COLUMNS, name) for name in ("learning_rate", "progress"))


class SandboxVectorEnv(GraphVectorEnv):
    """B independent sandbox runs; see `tamiyo.envs.sandbox` for the rules.

    Every episode is a chain of 3 to 6 layers and terminates after `rules.horizon` moments; how far
    it is shows in the observation. A finished run starts anew within the same step, and its last
    observation is in `infos["final_obs"]` (for the other runs, their current one).

    Args:
        num_envs: B.
        rules: The process.
        render_mode: Only `None`.
    """

    def __init__(
        self, num_envs: int = 1, *, rules: Rules | None = None, render_mode: None = None
    ) -> None:
        super().__init__(num_envs, MAX_LAYERS, 2 * (MAX_LAYERS - 1), render_mode)
        self.rules = Rules() if rules is None else rules
        self._layers = np.zeros(num_envs, np.int64)
        self._fault = np.zeros(num_envs, np.int64)
        self._cause = np.zeros(num_envs, np.int64)
        self._moment = np.zeros(num_envs, np.int64)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every run anew; a list of seeds counts as one seed."""
        self._reseed(seed, options)
        self._begin(np.ones(self.num_envs, bool))
        return self._observe(), {}

    def step(
        self, actions: Ints
    ) -> tuple[Observation, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        """One moment of every run; see `gymnasium.vector.VectorEnv.step`."""
        actions = np.asarray(actions).copy()
        actions[actions[:, 1] == MAX_LAYERS, 1] = -1
        well, rewards = self.rules.outcome(self._fault, self._cause, actions)
        self._fault[well] = NONE
        self._strike(well)
        self._moment += 1
        over = self._moment >= self.rules.horizon
        observations, infos = self._observe(), {}
        if over.any():
            infos = {"final_obs": observations, "_final_obs": over}
            self._begin(over)
            observations = self._observe()
        return observations, rewards, over, np.zeros_like(over), infos

    def optimal_actions(self) -> Ints:
        """[B, 3]: the best action for each run now, as `step` takes it."""
        left = self.rules.horizon - self._moment
        actions = optimal_actions(self.rules, self._fault, self._cause, left)
        actions[actions[:, 1] == -1, 1] = MAX_LAYERS
        return actions

    def _begin(self, rows: npt.NDArray[np.bool_]) -> None:
        draws = self.np_random.integers(MIN_LAYERS, MAX_LAYERS + 1, self.num_envs)
        self._layers[rows] = draws[rows]
        self._moment[rows] = 0
        self._fault[rows] = NONE
        self._strike(rows)

    def _strike(self, rows: npt.NDArray[np.bool_]) -> None:
        """Perhaps a fault, in the runs that are well."""
        kinds = self.np_random.choice(FAULTS, self.num_envs)
        struck = rows & (self.np_random.random(self.num_envs) < self.rules.strike)
        # What explodes shows in the next layer, so the last layer cannot be the cause.
        places = self._layers - (kinds == EXPLODING)
        causes = self.np_random.integers(0, places)
        self._fault[struck] = kinds[struck]
        self._cause[struck] = np.where(kinds == RATE, -1, causes)[struck]

    def _observe(self) -> Observation:
        count, rows = self.num_envs, np.arange(self.num_envs)
        position = np.arange(MAX_LAYERS)
        real = position < self._layers[:, None]
        x = np.zeros((count, MAX_LAYERS, NODE_DIM), np.float32)
        dormant, exploding = self._fault == DORMANT, self._fault == EXPLODING
        x[..., DEAD] = self._uniform(0.0, 0.3)
        x[rows[dormant], self._cause[dormant], DEAD] += 0.6
        x[..., GRADIENT] = self._uniform(-0.1, 0.1)
        x[rows[exploding], self._cause[exploding] + 1, GRADIENT] += 0.7
        x[..., SATURATION] = self._uniform(0.0, 1.0)
        x[..., DEPTH] = position / (self._layers[:, None] - 1)
        measured = np.zeros(NODE_DIM, bool)
        measured[[DEAD, GRADIENT, SATURATION, DEPTH]] = True
        x_measured = real[..., None] & measured
        return {
            "x": x * x_measured,
            "x_measured": x_measured.astype(np.int8),
            "node_mask": real.astype(np.int8),
            "layer_type": np.where(real, layer_type_index("Linear"), 0),
            **self._edges(),
            **self._globals(),
            "action_mask": (real[..., None] & _legal(LAYER_ACTIONS)).astype(np.int8),
            "model_action_mask": np.repeat(_legal(MODEL_ACTIONS)[None], count, 0).astype(np.int8),
        }

    def _edges(self) -> Observation:
        """Each link of the chain once each way; links beyond the last layer are padding."""
        links = np.arange(MAX_LAYERS - 1)
        real = np.tile(links + 1 < self._layers[:, None], 2)
        index = np.array([np.r_[links, links + 1], np.r_[links + 1, links]])
        attributes = np.zeros((*real.shape, EDGE_DIM), np.float32)
        attributes[..., DIRECTION] = np.repeat([1.0, -1.0], len(links)) * real
        measured = real[..., None] & (np.arange(EDGE_DIM) == DIRECTION)
        return {
            "edge_index": index * real[:, None],
            "edge_attr": attributes,
            "edge_measured": measured.astype(np.int8),
            "edge_mask": real.astype(np.int8),
        }

    def _globals(self) -> Observation:
        values = np.zeros((self.num_envs, GLOBAL_DIM), np.float32)
        values[:, LEARNING_RATE] = 0.5 * (self._fault == RATE)
        values[:, PROGRESS] = self._moment / self.rules.horizon
        measured = np.zeros_like(values, np.int8)
        measured[:, [LEARNING_RATE, PROGRESS]] = 1
        return {"global_features": values, "global_measured": measured}

    def _uniform(self, low: float, high: float) -> npt.NDArray[np.float64]:
        return self.np_random.uniform(low, high, (self.num_envs, MAX_LAYERS))


class SandboxEnv(SingleEnv):
    """One sandbox run.

    Args:
        rules: The process.
        render_mode: Only `None`.
    """

    def __init__(self, *, rules: Rules | None = None, render_mode: None = None) -> None:
        self._runs = SandboxVectorEnv(1, rules=rules)
        super().__init__(self._runs, render_mode)

    def optimal_action(self) -> Ints:
        """[3]: the best action now, as `step` takes it."""
        (action,) = self._runs.optimal_actions()
        return np.asarray(action)


def _legal(actions: tuple[AdaptationType, ...]) -> npt.NDArray[np.bool_]:
    return np.isin(list(ACTIONS), list(actions))
