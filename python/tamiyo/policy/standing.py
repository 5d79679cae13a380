"""Proposals have to stand for a while before anything is done about them.

A network is trained on one look at a run every so many steps; a live run may be looked at after
each of them, and every look is another chance of a passing mistake. The rules ask the same of
their symptoms.
"""

from dataclasses import replace

from tamiyo.contracts import AdaptationDecision
from tamiyo.graph import ModelGraphState
from tamiyo.policy.protocol import Check, Verdict

__all__ = ["StandingProposals"]


class StandingProposals:
    """Remembers for each run what is proposed about it, and since which step.

    Args:
        steps: Optimiser steps after which a proposal that was the same all along is confirmed;
            with 0 at once.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._since: dict[str, tuple[object, int]] = {}

    def confirmed(self, state: ModelGraphState, verdict: Verdict) -> Verdict:
        """The verdict, or while its decision has not stood long enough one without it.

        Args:
            state: The run's newest one; every state has to be shown here, or to `lapse`.
            verdict: What is proposed about it.
        """
        decision = verdict.decision
        if decision is None:
            self.lapse(state)
            return verdict
        stood = state.step - self._first_step(decision, state.step)
        check = Check("steps that the proposal has stood", stood >= self._steps, stood, self._steps)
        checks = (*verdict.checks, check)
        if check.passed:
            self._since.pop(decision.run, None)
            return replace(verdict, checks=checks)
        waits = (
            f"{decision.adaptation.value} has been proposed for {stood} steps, not {self._steps}"
        )
        return replace(verdict, decision=None, reason=waits, checks=checks, pressing=True)

    def lapse(self, state: ModelGraphState) -> None:
        """Nothing is proposed about this state."""
        if state.topology is not None:
            self._since.pop(state.topology.run, None)

    def _first_step(self, decision: AdaptationDecision, step: int) -> int:
        """Since when this has been proposed; now, if it is new or the run has gone back."""
        proposed = decision.adaptation, decision.target
        before, since = self._since.get(decision.run, (None, step))
        if before != proposed or since > step:
            since = step
        self._since[decision.run] = proposed, since
        return since
