"""Answers to decisions."""

from tamiyo.contracts import AdaptationDecision, AdaptationResult, Outcome
from tamiyo.host.trial import Trial

__all__ = ["describe", "result_of", "result_of_trial"]


def describe(error: Exception) -> str:
    """An error in one line of a reason."""
    return f"{type(error).__name__}: {error}"


def result_of(
    decision: AdaptationDecision,
    step: int,
    outcome: Outcome,
    reason: str,
    *,
    verified: bool | None = None,
) -> AdaptationResult:
    """The answer to a decision that changed nothing."""
    return AdaptationResult(
        decision_id=decision.decision_id,
        run=decision.run,
        step=step,
        outcome=outcome,
        reason=reason,
        steps_lost=0,
        verified=verified,
        duration_ms=0.0,
    )


def result_of_trial(
    trial: Trial, step: int, outcome: Outcome, reason: str, *, verified: bool | None = None
) -> AdaptationResult:
    """The answer to a decision that was applied, with what was measured."""
    return AdaptationResult(
        decision_id=trial.decision.decision_id,
        run=trial.decision.run,
        step=step,
        outcome=outcome,
        reason=reason,
        loss_before=trial.loss_before,
        loss_after=trial.loss_after,
        steps_lost=trial.steps_lost,
        verified=verified,
        duration_ms=trial.duration_ms,
    )
