"""An adaptation under watch, and the judgement whether it stays."""

import math
from dataclasses import dataclass, field
from statistics import median

from tamiyo.contracts import AdaptationDecision, Outcome
from tamiyo.host.actions import Undo
from tamiyo.host.snapshot import RunSnapshot, TrainedParameters

__all__ = ["Trial"]

EARLY = 8
"""Losses whose median may end a trial before its horizon."""


@dataclass(slots=True)
class Trial:
    """One applied adaptation on probation."""

    decision: AdaptationDecision
    undo: Undo
    before: RunSnapshot
    """The state to return to."""
    trained: TrainedParameters
    """What the optimiser trained right after it was applied."""
    step: int
    """Optimiser steps that were done when it was applied."""
    horizon: int
    """Steps that it is watched for."""
    loss_before: float | None
    """Robust level of the loss before; `None` if it was not finite or not known."""
    spread: float
    """Robust standard deviation of the loss before."""
    initial: float
    """Level at which the run's loss started, the scale on which a change matters."""
    steps_lost: int = 0
    """Steps that the adaptation itself has undone (`restore`)."""
    duration_ms: float = 0.0
    losses: list[float] = field(default_factory=list)

    def observe(self, loss: float) -> None:
        """Take the loss of a step that followed."""
        self.losses.append(loss)

    @property
    def loss_after(self) -> float | None:
        """Median of the last quarter of the losses (at least 8); `None` if not finite."""
        tail = self.losses[-max(EARLY, len(self.losses) // 4) :]
        finite = [loss for loss in tail if math.isfinite(loss)]
        return median(finite) if len(finite) * 2 > len(tail) else None

    def verdict(self, step: int) -> tuple[Outcome, str] | None:
        """What is to become of it now, and why; `None` while it is too early to say."""
        if self.losses and not math.isfinite(self.losses[-1]):
            return self._hurt("the loss is not finite")
        if len(self.losses) >= EARLY and self._beyond(self._early_margin(), EARLY):
            return self._hurt("the loss rose far above its level before")
        if step - self.step < self.horizon:
            return None
        if not self.losses:
            return Outcome.KEPT, "no loss was reported, so its effect is not known"
        if self._beyond(self._final_margin(), max(EARLY, len(self.losses) // 4)):
            return self._hurt("the loss is higher than before")
        return Outcome.KEPT, ""

    def _hurt(self, reason: str) -> tuple[Outcome, str]:
        # A run that was already broken has nothing better to go back to.
        if self.loss_before is None:
            return Outcome.FAILED, f"{reason}, as it was before"
        return Outcome.ROLLED_BACK, reason

    def _beyond(self, margin: float, tail: int) -> bool:
        if self.loss_before is None:
            return False
        return median(self.losses[-tail:]) > self.loss_before + margin

    def _early_margin(self) -> float:
        return max(10 * self.spread, abs(self.loss_before or 0.0), 0.25 * abs(self.initial))

    def _final_margin(self) -> float:
        # Medians of 25 or more values scatter by about a quarter of the values' own spread.
        scale = abs(self.loss_before or 0.0)
        return max(1.5 * self.spread, 0.05 * scale, 0.01 * abs(self.initial))
