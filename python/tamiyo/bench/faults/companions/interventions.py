"""What baselines do to a run that do not act through Tamiyo, in the words of its decisions."""

from tamiyo.bench.faults.rows import FaultAct
from tamiyo.contracts import AdaptationType, Outcome

__all__ = ["intervention"]


def intervention(
    step: int, adaptation: AdaptationType, by: str, reason: str, **parameters: float
) -> FaultAct:
    """Something that was done to the run as a whole, for good."""
    return FaultAct(
        step=step,
        adaptation=str(adaptation),
        target=(),
        parameters=dict(parameters),
        by=by,
        confidence=1.0,
        reason=reason,
        outcome=str(Outcome.KEPT),
        answer="",
    )
