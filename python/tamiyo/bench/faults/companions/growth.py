"""Periodic growth: a quarter more units for one layer after the other, whether anything is wrong.

The baseline that every growth trigger has to beat: Maile et al., *When, where, and how to add new
neurons to ANNs*, AutoML 2022, arXiv:2202.08539, found that few do.
"""

import numpy as np

from tamiyo.bench.faults.companion import POLICIES, Policy
from tamiyo.bench.faults.companions.controlled import Controlled
from tamiyo.bench.faults.companions.periodic import PeriodicPolicy
from tamiyo.contracts import AdaptationType
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy.proposal import Proposal

__all__ = ["grow"]

PERIOD = 120
SHARE = 0.25
_COLUMN = ACTIONS.index(AdaptationType.WIDEN)


def grow(state: ModelGraphState, turn: int) -> Proposal | None:
    """The next layer that can be widened, from the first on and round again."""
    able = np.flatnonzero(state.graph_data.action_mask[:, _COLUMN].numpy()).tolist()
    if not able:
        return None
    target = (able[turn % len(able)],)
    return Proposal(AdaptationType.WIDEN, target, "its turn", {"units": SHARE})


POLICIES.add(Policy("growth", lambda: Controlled(PeriodicPolicy("growth", PERIOD, grow))))
