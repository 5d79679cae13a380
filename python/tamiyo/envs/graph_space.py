"""Observations as `gymnasium.spaces.Graph`, without padding, for learners that can take them.

The environments themselves have padded arrays: vectors of environments cannot share the memory of
graphs, and most learners take none.
"""

from typing import Any, TypeAlias

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from tamiyo.envs.observations import LIMIT, Observation
from tamiyo.graph.schema import ACTIONS, EDGE_DIM, LAYER_TYPES, NODE_DIM

__all__ = ["GraphObservation", "to_graph"]

GraphDict: TypeAlias = dict[str, Any]


def to_graph(observation: Observation) -> GraphDict:
    """One observation without its padding.

    Args:
        observation: Of one run; see `tamiyo.envs.observations.observation_space`.

    Returns:
        `graph`, whose nodes have the columns `x`, `x_measured`, the layer type's index and the
        action mask, whose edges have `edge_attr` and `edge_measured`; and `global_features`,
        `global_measured` and `model_action_mask` as they were.
    """
    nodes, edges = observation["node_mask"] == 1, observation["edge_mask"] == 1

    def columns(mask: npt.NDArray[np.bool_], *names: str) -> npt.NDArray[np.float32]:
        parts = [observation[name][mask].reshape(mask.sum(), -1) for name in names]
        return np.concatenate(parts, axis=1).astype(np.float32)

    whole = ("global_features", "global_measured", "model_action_mask")
    return {
        "graph": spaces.GraphInstance(
            nodes=columns(nodes, "x", "x_measured", "layer_type", "action_mask"),
            edges=columns(edges, "edge_attr", "edge_measured"),
            edge_links=observation["edge_index"][:, edges].T.astype(np.int64),
        ),
        **{name: observation[name] for name in whole},
    }


class GraphObservation(gymnasium.ObservationWrapper[GraphDict, npt.NDArray[np.int64], Observation]):
    """Wraps one of Tamiyo's environments; see `to_graph`. Actions stay as they are.

    Args:
        env: Has the padded observations.
    """

    def __init__(self, env: gymnasium.Env[Observation, npt.NDArray[np.int64]]) -> None:
        super().__init__(env)
        padded: Any = env.observation_space
        if not isinstance(padded, spaces.Dict):
            raise TypeError(f"{padded} has no padded graphs")
        types, flags = np.full(1, len(LAYER_TYPES) - 1.0), np.ones(NODE_DIM)
        high = np.concatenate([np.full(NODE_DIM, LIMIT), flags, types, np.ones(len(ACTIONS))])
        low = np.concatenate([np.full(NODE_DIM, -LIMIT), np.zeros(len(high) - NODE_DIM)])
        edge = np.concatenate([np.full(EDGE_DIM, LIMIT), np.ones(EDGE_DIM)])
        least = np.concatenate([np.full(EDGE_DIM, -LIMIT), np.zeros(EDGE_DIM)])
        self.observation_space = spaces.Dict(
            {
                "graph": spaces.Graph(
                    spaces.Box(low.astype(np.float32), high.astype(np.float32)),
                    spaces.Box(least.astype(np.float32), edge.astype(np.float32)),
                ),
                "global_features": padded["global_features"],
                "global_measured": padded["global_measured"],
                "model_action_mask": padded["model_action_mask"],
            }
        )

    def observation(self, observation: Observation) -> GraphDict:
        """See `gymnasium.ObservationWrapper`."""
        return to_graph(observation)
