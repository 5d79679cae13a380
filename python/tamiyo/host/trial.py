"""An adaptation under watch, and the judgement whether it stays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from tamiyo.contracts import AdaptationDecision, Outcome
from tamiyo.host.actions import Undo
from tamiyo.host.snapshot import RunSnapshot, TrainedParameters
from tamiyo.host.watch import error_of_median

__all__ = ["WINDOWS", "Trial", "Validation"]

EARLY = 8
"""Losses whose median may end a trial before its horizon."""
RECOVERED = 3 * EARLY
"""Losses after which the loss must be down again."""
JUMP = 3.0
"""Standard deviations by which the first losses lie above the last ones after a jump."""
WINDOWS = 6
"""Windows of weight drift in a horizon."""
SHAKEN = 3.0
"""Drift, over that before, which no healthy run shows from one window to the next."""
SLOWED = 1 / 6
"""The same for a fall, which takes momentum a window to follow."""
FROZEN = 1 / 32
"""Drift, over that before, of a layer that does not learn."""
INVALID = 1.5
"""Validation loss, over that before, which is no fluctuation if it comes twice in a row."""
SURER = 0.02
"""Gain in validation accuracy for which a higher validation loss is the price: a network that is
right more often, and surer where it is wrong."""
GAINED = 0.1
"""Share of its loss by which a run that made no progress has to come down to be said to."""
INVALIDATED = "the validation loss is far above its level before"
LONGEST = 3
"""Horizons for which a trial may be prolonged."""

Verdict = tuple[Outcome, str]


class Validation(NamedTuple):
    """An evaluation on held-out data."""

    loss: float
    accuracy: float | None = None
    """In [0, 1]; `None` if it was not reported."""


@dataclass(slots=True)
class Trial:
    """One applied adaptation on probation.

    An adaptation that leaves the run as steady as it was need only not raise the loss. One that
    visibly shakes it (the loss jumps, or the weights move much faster or slower than in the window
    before) has the burden of proof: it must make up for the jump soon, and by the horizon it must
    have gained as much as the run would have without it, as far as that can be told. A trial is
    prolonged, up to three horizons, while the weights move faster and faster or the learning rate
    rises, while a loss that fell before stands still, and while the run's validation is awaited.
    A run whose loss did not depend on its inputs has nothing to lose but time: slower is no harm
    then, and what is brought back to life may be worse than nothing until the horizon.
    """

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
    """Level of the loss right before; `None` if it was not finite or not known."""
    spread: float
    """Robust standard deviation of the loss before."""
    initial: float
    """Level at which the run's loss started, the scale on which a change matters."""
    latest: float | None = None
    """Median of the very last losses before; where the loss falls fast it is below the level."""
    noise: float = 0.0
    """Standard deviation of the loss about its trend."""
    latest_noise: float = 0.0
    """The same of the last losses alone: a run may have become more restless."""
    pace: float = 0.0
    """By how much the loss fell in the 32 steps before; 0 if that is in doubt."""
    rates: Sequence[float] = ()
    """How far the weights moved in each window since, over the last window before."""
    unscheduled: Sequence[float] = ()
    """The same but for what a schedule of the learning rate has done since."""
    stillest: Sequence[float] = ()
    """That of the matrix that moves least."""
    shares: Sequence[float] = ()
    """Learning rate in each window over that right after the adaptation."""
    steady: bool = False
    """Whether the learning rate was not on the rise before."""
    validation: Validation | None = None
    """The last one of the run as it was before; `None` if there was none."""
    diverged: bool = False
    """Whether the losses right before were not finite."""
    cut_off: bool = False
    """Whether the loss did not depend on the inputs before: see `contracts.reach.cut_off`."""
    steps_lost: int = 0
    """Steps that the adaptation itself has undone (`restore`)."""
    duration_ms: float = 0.0
    losses: list[float] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    _jumped: bool = False
    _stayed_up: bool = False
    _until: int = field(init=False)

    def __post_init__(self) -> None:
        self._until = self.horizon

    def observe(self, loss: float) -> None:
        """Take the loss of a step that followed."""
        self.losses.append(loss)
        if self.latest is None:
            return
        if len(self.losses) == EARLY:
            noise = max(self.noise, self.latest_noise)
            least = max(JUMP * noise, 0.05 * abs(self.latest), 0.02 * abs(self.initial))
            self._jumped = not self._tail(EARLY) <= self.latest + least
        elif len(self.losses) == RECOVERED:
            self._stayed_up = self._is_up_to_stay(self.latest)

    def _is_up_to_stay(self, latest: float) -> bool:
        """Whether the loss is higher beyond doubt, or a jump was not made good."""
        level = latest if self.loss_before is None else self.loss_before
        error = self.noise * math.hypot(error_of_median(1, RECOVERED), error_of_median(1, 32))
        if not self._tail(RECOVERED) <= level + max(4 * error, 0.05 * abs(level)):
            return True
        due = latest - self.pace * (RECOVERED - EARLY / 2) / 32
        return self._jumped and not self._tail(EARLY) <= due + self.noise / 2

    @property
    def loss_after(self) -> float | None:
        """Median of the last quarter of the losses (at least 8); `None` if not finite."""
        tail = self.losses[-self._quarter :]
        finite = [loss for loss in tail if math.isfinite(loss)]
        return median(finite) if len(finite) * 2 > len(tail) else None

    def verdict(self, step: int, *, last: bool = False) -> Verdict | None:
        """What is to become of it now, and why; `None` while it is too early to say.

        Args:
            step: Optimiser steps done.
            last: Whether there will be no later chance; a quarter of the horizon is then enough.
        """
        if reason := self._early_harm():
            return Outcome.ROLLED_BACK, reason
        enough = max(RECOVERED, self.horizon // 4) if last else self._until
        if step - self.step < enough:
            return None
        if reason := self._final_harm():
            return Outcome.ROLLED_BACK, reason
        if not last and self._until < LONGEST * self.horizon and self._unsettled():
            self._until += self.horizon
            return None
        if self.steady and self._runs_away():
            return Outcome.ROLLED_BACK, "the learning rate, steady before, has risen ever since"
        return Outcome.KEPT, "" if self.losses else "no loss was reported: its effect is not known"

    def _early_harm(self) -> str:
        """What shows without waiting for the horizon; empty if nothing does."""
        if self.losses and not math.isfinite(self.losses[-1]):
            return "the loss is not finite"
        if not self.cut_off and self._invalid_twice:
            return INVALIDATED
        if self.loss_before is None or len(self.losses) < EARLY:
            return ""
        if self._tail(EARLY) > self.loss_before + self._early_margin():
            return "the loss rose far above its level before"
        stayed_up = self._stayed_up and not self.cut_off
        return "the loss went up and did not come back" if stayed_up else ""

    def _final_harm(self) -> str:
        """What shows at the horizon."""
        if self._invalid_twice:
            return INVALIDATED
        if self.loss_before is None or not self.losses:
            return ""
        after = self._tail(self._quarter)
        if after > self.loss_before + self._final_margin():
            return "the loss is higher than before"
        return self._too_slow(after)

    def _too_slow(self, after: float) -> str:
        """What is wrong with how fast the run learns now, at a present level of the loss."""
        rates = [rate for rate in self.unscheduled if not math.isnan(rate)]
        if self._lost_pace(rates, after):
            return "learning has slowed down"
        shaken = self._jumped or bool(rates and rates[0] > SHAKEN)
        if shaken and self.latest is not None and after > self.latest - self.pace:
            return "the loss did not make up for the disturbance"
        if self._until > self.horizon and self._stands_still(after):
            return "the loss no longer falls"
        return ""

    def _lost_pace(self, rates: Sequence[float], after: float) -> bool:
        """Whether the weights move much less, without a gain that would justify it.

        Args:
            rates: Drift in each window over that before.
            after: Present level of the loss.
        """
        if self.cut_off or self._progresses(after):
            return False
        if len(self.stillest) > 2 and all(rate < FROZEN for rate in list(self.stillest)[1:]):
            return True
        if len(rates) < 3 or min(median(rates[1:3]), median(rates[1:])) >= SLOWED:
            return False
        if median(rates[1:]) < FROZEN:
            return True
        if self.pace:
            return self._present_pace() < self.pace and not self._nearly_gone(after)
        return self.latest is None or after > self.latest - 3 * self._error

    def _progresses(self, after: float) -> bool:
        """Whether a run that made no progress before clearly does now.

        Weights that a far too high learning rate threw about move a hundredth as far when it is
        right.
        """
        if self.pace or self.loss_before is None:
            return False
        level = self.loss_before if self.latest is None else min(self.latest, self.loss_before)
        return after < level - max(3 * self._error, GAINED * abs(level))

    def _unsettled(self) -> bool:
        """Whether more steps would say more."""
        if self.validation is not None and not self.validations:
            return True
        if self.validations and self._invalid(self.validations[-1]):
            return True
        rates = [rate for rate in self.rates if not math.isnan(rate)]
        if len(rates) > 2 and rates[-1] > min(1.5, 1.3 * median(rates[: len(rates) // 2])):
            return True
        if self._runs_away():
            return True
        return bool(self.losses) and self._stands_still(self._tail(self._quarter))

    def _runs_away(self) -> bool:
        """Whether the learning rate has doubled since, and goes on rising."""
        return len(self.shares) > 1 and self.shares[-1] > max(2.0, self.shares[-2])

    def _stands_still(self, after: float) -> bool:
        """Whether a loss that fell before has stopped falling far from its end."""
        if self.latest is None or self.pace <= 0.1 * abs(self.loss_before or 0.0):
            return False
        stopped = self._present_pace() < 0.05 * self.pace
        return stopped and after > self.latest - self.pace / 4 and not self._nearly_gone(after)

    def _invalid(self, found: Validation) -> bool:
        """Whether a validation loss is no fluctuation; a single one may be."""
        before = self.validation
        if before is None:
            return False
        if found.loss <= INVALID * abs(before.loss) + 0.01 * abs(self.initial):
            return False
        if found.accuracy is None or before.accuracy is None or not math.isfinite(found.loss):
            return True
        return found.accuracy < before.accuracy + SURER

    @property
    def _invalid_twice(self) -> bool:
        return len(self.validations) > 1 and all(map(self._invalid, self.validations[-2:]))

    def _nearly_gone(self, after: float) -> bool:
        """Whether the loss has come down so far that it need not go on falling as before."""
        return after < (self.loss_before or 0.0) / 2

    def _present_pace(self) -> float:
        """Fall of the loss in 32 steps, from the two halves of the trial."""
        half = len(self.losses) // 2
        fall = median(self.losses[:half]) - median(self.losses[half:]) if half else 0.0
        return fall / max(half, 1) * 32

    @property
    def _error(self) -> float:
        """Standard error of the difference between the levels after and before."""
        return self.noise * math.hypot(error_of_median(1, EARLY), error_of_median(1, self._quarter))

    @property
    def _quarter(self) -> int:
        return max(EARLY, min(len(self.losses), self.horizon) // 4)

    def _tail(self, count: int) -> float:
        return median(self.losses[-count:])

    def _early_margin(self) -> float:
        return max(10 * self.spread, abs(self.loss_before or 0.0), 0.25 * abs(self.initial))

    def _final_margin(self) -> float:
        # Medians of 25 or more values scatter by about a quarter of the values' own spread.
        scale = abs(self.loss_before or 0.0)
        return max(1.5 * self.spread, 0.05 * scale, 0.01 * abs(self.initial))
