"""Policies that act every so many steps, whatever they see, through Tamiyo."""

from collections.abc import Callable

from tamiyo.contracts import AdaptationDecision
from tamiyo.graph import ModelGraphState
from tamiyo.policy import PolicyConfig, Verdict
from tamiyo.policy.proposal import Proposal, make_budget, to_decision

__all__ = ["PeriodicPolicy"]


class PeriodicPolicy:
    """Proposes something at every reading that is a period after the last decision.

    Args:
        name: Of the policy.
        period: Optimiser steps; more than Tamiyo watches an adaptation for.
        propose: What, for a state and the number of decisions before; `None` is nothing.
    """

    version = "1"

    def __init__(
        self, name: str, period: int, propose: Callable[[ModelGraphState, int], Proposal | None]
    ) -> None:
        self.name = name
        self.config = PolicyConfig()
        self.budget = make_budget(self.config)
        self._period = period
        self._propose = propose
        self._last = 0
        self._turn = 0

    def decide(self, state: ModelGraphState) -> Verdict:
        """What is due."""
        if state.run is None or state.step - self._last < self._period:
            return Verdict(None, "not due yet")
        proposal = self._propose(state, self._turn)
        if proposal is None:
            return Verdict(None, "there is nothing to do that is legal")
        self._last, self._turn = state.step, self._turn + 1
        ttl = self.config.decision_ttl_steps
        decision = to_decision(proposal, state, self.name, self.version, ttl)
        self.budget.charge(decision, state.epoch)
        return Verdict(decision, proposal.reason)

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """The decision of `decide`, or `None`."""
        return self.decide(state).decision
