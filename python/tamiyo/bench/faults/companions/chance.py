"""Chance: one of all legal adaptations now and then, whatever is seen."""

import zlib

import numpy as np

from tamiyo.bench.faults.companion import POLICIES, Policy
from tamiyo.bench.faults.companions.controlled import Controlled
from tamiyo.bench.faults.companions.periodic import PeriodicPolicy
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy.proposal import Proposal

__all__ = ["draw"]

PERIOD = 120


def draw(state: ModelGraphState, turn: int) -> Proposal | None:
    """A pair of place and adaptation, all legal ones equally likely; the run's name is the seed."""
    layers = state.graph_data.action_mask.numpy()
    run = state.graph_data.model_action_mask.numpy()
    legal = np.argwhere(np.concatenate([layers, run.reshape(1, -1)]))
    if not len(legal):
        return None
    random = np.random.default_rng([zlib.crc32(str(state.run).encode()), turn])
    row, column = (int(number) for number in random.choice(legal))
    target = (row,) if row < len(layers) else ()
    return Proposal(ACTIONS[column], target, "drawn by lot")


POLICIES.add(Policy("random", lambda: Controlled(PeriodicPolicy("random", PERIOD, draw))))
