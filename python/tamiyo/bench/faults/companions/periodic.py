"""Policies that act every so many steps, whatever they see, through Tamiyo."""

from collections.abc import Callable

from tamiyo.bench.proposing import ProposingPolicy
from tamiyo.graph import ModelGraphState
from tamiyo.policy.proposal import Proposal

__all__ = ["PeriodicPolicy"]


class PeriodicPolicy(ProposingPolicy):
    """Proposes something at every reading that is a period after the last decision.

    Args:
        name: Of the policy.
        period: Optimiser steps; more than Tamiyo watches an adaptation for.
        propose: What, for a state and the number of decisions before; `None` is nothing.
    """

    def __init__(
        self, name: str, period: int, propose: Callable[[ModelGraphState, int], Proposal | None]
    ) -> None:
        super().__init__(name)
        self._period = period
        self._propose = propose
        self._last = 0
        self._turn = 0

    def propose(self, state: ModelGraphState) -> Proposal | str:
        """What is due."""
        if state.step - self._last < self._period:
            return "not due yet"
        proposal = self._propose(state, self._turn)
        if proposal is None:
            return "there is nothing to do that is legal"
        self._last, self._turn = state.step, self._turn + 1
        return proposal
