"""Policies that are one question: what is to be done now, if anything?"""

from tamiyo.contracts import AdaptationDecision
from tamiyo.graph import ModelGraphState
from tamiyo.policy import PolicyConfig, Verdict
from tamiyo.policy.proposal import Proposal, make_budget, to_decision

__all__ = ["ProposingPolicy"]


class ProposingPolicy:
    """Makes decisions of what a subclass proposes, and charges them, as Tamiyo's own policies do.

    Args:
        name: Of the policy.
    """

    version = "1"

    def __init__(self, name: str) -> None:
        self.name = name
        self.config = PolicyConfig()
        self.budget = make_budget(self.config)

    def propose(self, state: ModelGraphState) -> Proposal | str:
        """What is to be done, or why nothing is.

        Args:
            state: Of a run that is known.
        """
        raise NotImplementedError

    def decide(self, state: ModelGraphState) -> Verdict:
        """See `DecisionPolicy.decide`."""
        if state.run is None:
            return Verdict(None, "the run is not known yet")
        proposal = self.propose(state)
        if isinstance(proposal, str):
            return Verdict(None, proposal)
        ttl = self.config.decision_ttl_steps
        decision = to_decision(proposal, state, self.name, self.version, ttl)
        self.budget.charge(decision, state.epoch)
        return Verdict(decision, proposal.reason)

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """The decision of `decide`, or `None`."""
        return self.decide(state).decision
