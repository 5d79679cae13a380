"""ReDo: recycles dormant units now and then, whether anything is wrong or not.

Sokar et al., *The Dormant Neuron Phenomenon in Deep Reinforcement Learning*, ICML 2023,
arXiv:2302.12902: units whose mean activation is at most .025 of their layer's get fresh incoming
and zero outgoing weights, and the optimiser forgets its moments of them.
"""

import numpy as np

from tamiyo.bench.faults.companion import POLICIES, Policy
from tamiyo.bench.faults.companions.controlled import Controlled
from tamiyo.bench.faults.companions.periodic import PeriodicPolicy
from tamiyo.contracts import AdaptationType
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy.proposal import Proposal

__all__ = ["recycle"]

PERIOD = 120
"""The paper's thousand steps are a part of its runs as this is of ours."""
DORMANT = 0.025
_COLUMN = ACTIONS.index(AdaptationType.REINITIALIZE)


def recycle(state: ModelGraphState, _turn: int) -> Proposal | None:
    """Every layer with dead units."""
    legal = state.graph_data.action_mask[:, _COLUMN].numpy()
    dead = np.nan_to_num(state.layers["dead_neuron_ratio_last"]) > 0
    target = tuple(np.flatnonzero(legal & dead).tolist())
    if not target:
        return None
    parameters: dict[str, float | str] = {"scope": "dormant", "threshold": DORMANT}
    return Proposal(AdaptationType.REINITIALIZE, target, "units are dormant", parameters)


POLICIES.add(Policy("redo", lambda: Controlled(PeriodicPolicy("redo", PERIOD, recycle))))
