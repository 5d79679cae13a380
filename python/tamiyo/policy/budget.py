"""How often a run may be adapted: so many times an epoch, and not again before a cooldown."""

from dataclasses import dataclass

from tamiyo.contracts import AdaptationDecision

__all__ = ["DecisionBudget"]


@dataclass(frozen=True, slots=True)
class _Charge:
    decision_id: str
    step: int
    epoch: int


class DecisionBudget:
    """Counts the decisions of each run, in optimiser steps and epochs.

    A decision that is issued again (same id) is charged once. Distances in steps count both ways,
    because a run that goes back to an earlier step has not earned a new budget by that.

    Args:
        max_per_epoch: Decisions per epoch.
        cooldown_steps: Steps that must pass after a decision.
        window_steps: Steps after which a decision no longer counts, whatever the epoch, so that
            runs that never report an epoch are not shut out for good.
    """

    def __init__(self, max_per_epoch: int, cooldown_steps: int, window_steps: int) -> None:
        self.max_per_epoch = max_per_epoch
        self.cooldown_steps = cooldown_steps
        self.window_steps = window_steps
        self._charges: dict[str, list[_Charge]] = {}

    def spent(self, run: str, step: int, epoch: int, *, apart_from: str = "") -> int:
        """Decisions that count against the budget at this step."""
        return sum(
            charge.epoch == epoch and abs(step - charge.step) < self.window_steps
            for charge in self._charges.get(run, ())
            if charge.decision_id != apart_from
        )

    def steps_since(self, run: str, step: int, *, apart_from: str = "") -> float:
        """Steps between this one and the run's last decision; NaN when there is none."""
        steps = [
            charge.step for charge in self._charges.get(run, ()) if charge.decision_id != apart_from
        ]
        return float(abs(step - steps[-1])) if steps else float("nan")

    def charge(self, decision: AdaptationDecision, epoch: int) -> None:
        """Count a decision."""
        charges = self._charges.setdefault(decision.run, [])
        if all(charge.decision_id != decision.decision_id for charge in charges):
            charges.append(_Charge(decision.decision_id, decision.issued_at_step, epoch))
        # Only the budget and the decision before a repeated one are ever looked at.
        del charges[: -self.max_per_epoch - 1]

    def release(self, decision: AdaptationDecision) -> None:
        """Take back the charge of a decision that was never published or never applied."""
        charges = self._charges.get(decision.run, [])
        charges[:] = [item for item in charges if item.decision_id != decision.decision_id]
