"""Who decides beside a live run, by the name that is given on the command line."""

import math
from collections.abc import Sequence
from pathlib import Path

from tamiyo.bench.proposing import ProposingPolicy
from tamiyo.contracts import AdaptationType
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy import (
    DecisionPolicy,
    EnhancedTamiyoPolicyGNN,
    FallbackPolicy,
    RulesPolicy,
)
from tamiyo.policy.checkpoint import CheckpointError, shipped
from tamiyo.policy.proposal import Proposal

__all__ = ["NOBODY", "ORACLE", "OraclePolicy", "make_policy"]

NOBODY, RULES, LEARNED, ORACLE = "none", "rules", "learned", "oracle"
WAIT = 20
"""Steps that the oracle lets pass after a fault: a cure that comes before the governor can tell it
from a spike is held against the healthy loss of before, and taken back."""


def make_policy(name: str) -> DecisionPolicy:
    """A fresh policy, without memory of any run.

    Args:
        name: `rules`, `learned` for the policy that comes with the package and the rules behind
            it, or the folder of a checkpoint, likewise with the rules behind it.

    Raises:
        CheckpointError: a checkpoint that cannot be used. A policy that silently was the rules
            alone would pass for the learned one.
    """
    if name == RULES:
        return RulesPolicy()
    folder = shipped() if name == LEARNED else Path(name)
    if folder is None:
        raise CheckpointError("no policy comes with this installation: give the folder of one")
    return FallbackPolicy(EnhancedTamiyoPolicyGNN.from_pretrained(folder))


class OraclePolicy(ProposingPolicy):
    """Is told the fault, and applies its first legal cure once, at a reading soon after it.

    What it wins back is what can be won by one adaptation of the usual dose.

    Args:
        strike: Optimiser steps, as the controller counts them, after which the fault strikes.
        place: Name of the faulty layer; `None` where it is the run as a whole.
        cures: What mends it, best first; nothing in a healthy run.
    """

    def __init__(self, strike: int, place: str | None, cures: Sequence[AdaptationType]) -> None:
        super().__init__(ORACLE)
        self._strike, self._place, self._cures = strike, place, cures

    def propose(self, state: ModelGraphState) -> Proposal | str:
        """The cure, once the fault was measured."""
        if not (state.layers["step"][state.seen] > self._strike + WAIT).any():
            return "the fault was not measured yet"
        # A decision that was refused is taken off the budget.
        if not math.isnan(self.budget.steps_since(str(state.run), state.step)):
            return "the cure was applied"
        return self._cure(state) or "no cure is legal"

    def _cure(self, state: ModelGraphState) -> Proposal | None:
        graph = state.graph_data
        for cure in self._cures:
            column = ACTIONS.index(cure)
            if cure is AdaptationType.RESTORE or self._place is None:
                if bool(graph.model_action_mask[0, column]):
                    return Proposal(cure, (), "told")
            elif state.topology is not None:
                layer = state.topology.by_name[self._place].layer_id
                if bool(graph.action_mask[layer, column]):
                    return Proposal(cure, (layer,), "told")
        return None
