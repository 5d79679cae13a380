"""Graphs as gymnasium observations: a Dict of padded arrays whose masks say what is real.

The names are those of the graphs that `ModelGraphBuilder` makes, so that one learner reads live
runs and environments alike. An action is (adapt?, target, type), where the target after the last
node is the model as a whole.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from tamiyo.graph.schema import ACTIONS, EDGE_DIM, GLOBAL_DIM, LAYER_TYPES, NODE_DIM

__all__ = ["LIMIT", "Observation", "action_space", "observation_space"]

Observation: TypeAlias = dict[str, npt.NDArray[Any]]
"""A member of an observation space, or of a batch of one."""

LIMIT = 10.0
"""Largest magnitude of a feature."""


def observation_space(nodes: int, edges: int) -> spaces.Dict:
    """Space of graphs with up to so many nodes N and directed edges E.

    `x` [N, 16], `x_measured`, `node_mask` [N], `layer_type` [N], `edge_index` [2, E], `edge_attr`
    [E, 8], `edge_measured`, `edge_mask` [E], `global_features` [G], `global_measured`,
    `action_mask` [N, types], `model_action_mask` [types].
    """

    def features(*shape: int) -> spaces.Box:
        return spaces.Box(-LIMIT, LIMIT, shape, np.float32)

    return spaces.Dict(
        {
            "x": features(nodes, NODE_DIM),
            "x_measured": spaces.MultiBinary((nodes, NODE_DIM)),
            "node_mask": spaces.MultiBinary(nodes),
            "layer_type": spaces.Box(0, len(LAYER_TYPES) - 1, (nodes,), np.int64),
            "edge_index": spaces.Box(0, nodes - 1, (2, edges), np.int64),
            "edge_attr": features(edges, EDGE_DIM),
            "edge_measured": spaces.MultiBinary((edges, EDGE_DIM)),
            "edge_mask": spaces.MultiBinary(edges),
            "global_features": features(GLOBAL_DIM),
            "global_measured": spaces.MultiBinary(GLOBAL_DIM),
            "action_mask": spaces.MultiBinary((nodes, len(ACTIONS))),
            "model_action_mask": spaces.MultiBinary(len(ACTIONS)),
        }
    )


def action_space(nodes: int) -> spaces.MultiDiscrete:
    """Space of (adapt?, target, type) for graphs with up to so many nodes."""
    return spaces.MultiDiscrete([2, nodes + 1, len(ACTIONS)])
