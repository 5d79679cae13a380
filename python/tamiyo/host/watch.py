"""Robust alarms on a noisy series: median and MAD of its own past, with hysteresis."""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from statistics import median

__all__ = ["LossHistory", "RobustWatch", "error_of_median", "robust_spread"]

MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


SIGNIFICANT = 5.0
"""Standard errors beyond which a fall of the loss is believed."""


def robust_spread(values: Iterable[float], level: float) -> float:
    """Standard deviation estimated from the median absolute deviation around `level`."""
    return MAD_TO_DEVIATION * median(abs(value - level) for value in values)


def error_of_median(deviation: float, count: int) -> float:
    """Standard error of the median of `count` values, were they normally distributed."""
    return math.sqrt(math.pi / 2 / count) * deviation


class RobustWatch:
    """Raises an alarm when a series stays far above its own past, clears it when it is back.

    A value is high if it lies more than `raise_at` spreads above the median of the window; the
    alarm goes up after `raise_after` high values in a row, or at once for a value that is not
    finite. It clears after `clear_after` values in a row below `clear_at` spreads. While values are
    high they do not enter the window, so that a broken run does not become its own norm; only
    after `patience` values in an alarm is the present taken for the new normal.

    Args:
        window: Past values that make the norm.
        minimum: Values needed before anything can be high.
        raise_at: Spreads above the median at which a value is high.
        clear_at: Spreads above the median below which it is normal again.
        raise_after: High values in a row that raise the alarm.
        clear_after: Normal values in a row that clear it.
        relative_floor: The spread is taken for at least this share of the median's size...
        initial_floor: ...and this share of the first median's, so that a series close to zero
            does not alarm at trifles...
        absolute_floor: ...and at least this.
        patience: Values in an alarm after which the norm starts anew.
    """

    def __init__(
        self,
        *,
        window: int = 64,
        minimum: int = 20,
        raise_at: float = 6.0,
        clear_at: float = 3.0,
        raise_after: int = 5,
        clear_after: int = 10,
        relative_floor: float = 0.1,
        initial_floor: float = 0.01,
        absolute_floor: float = 0.0,
        patience: int = 1000,
    ) -> None:
        self._values: deque[float] = deque(maxlen=window)
        self._minimum = minimum
        self._raise_at, self._clear_at = raise_at, clear_at
        self._raise_after, self._clear_after = raise_after, clear_after
        self._relative_floor, self._initial_floor = relative_floor, initial_floor
        self._absolute_floor = absolute_floor
        self._patience = patience
        self._refresh_in = 0
        self._high_bound = self._clear_bound = math.inf
        self.initial: float | None = None
        """The first median."""
        self.alarm = False
        self._high = 0
        self._normal = 0
        self._in_alarm = 0

    @property
    def suspicious(self) -> bool:
        """Whether the latest value was high or an alarm is up: not a state to call healthy."""
        return self.alarm or self._high > 0

    @property
    def ready(self) -> bool:
        """Whether there is enough past to judge a value."""
        return len(self._values) >= self._minimum

    @property
    def bound(self) -> float:
        """The largest value that is not high."""
        return self._high_bound

    def observe(self, value: float) -> bool:
        """Take the next value; returns whether the alarm is up."""
        if not math.isfinite(value):
            self._high += 1
            self._normal = 0
            self.alarm = True
        elif value > self._high_bound:
            self._high += 1
            self._normal = 0
            self.alarm = self.alarm or self._high >= self._raise_after
        else:
            self._high = 0
            self._absorb(value)
        if self.alarm:
            self._in_alarm += 1
            if self._in_alarm >= self._patience and math.isfinite(value):
                self._start_anew()
        return self.alarm

    def _absorb(self, value: float) -> None:
        if self.alarm:
            self._normal = self._normal + 1 if value <= self._clear_bound else 0
            if self._normal < self._clear_after:
                return
            self.alarm = False
            self._in_alarm = 0
        self._values.append(value)
        self._refresh_in -= 1
        if self._refresh_in <= 0 and self.ready:
            # The norm moves slowly; a median at every step would cost more than all the rest.
            self._refresh_in = 16
            self._refresh()

    def _refresh(self) -> None:
        level = median(self._values)
        if self.initial is None:
            self.initial = level
        spread = max(
            robust_spread(self._values, level),
            self._relative_floor * abs(level),
            self._initial_floor * abs(self.initial),
            self._absolute_floor,
        )
        self._high_bound = level + self._raise_at * spread
        self._clear_bound = level + self._clear_at * spread

    def _start_anew(self) -> None:
        self._values.clear()
        self._high_bound = self._clear_bound = math.inf
        self.alarm = False
        self._high = self._normal = self._in_alarm = self._refresh_in = 0


def _count_last(values: Sequence[float], holds: Callable[[float], bool]) -> int:
    """Length of the longest end of a series of which all that is true."""
    return sum(1 for _ in itertools.takewhile(holds, reversed(values)))


class LossHistory:
    """Recent losses, their robust level, and the slow level of the whole run."""

    RECENT = 32
    SHORT = 8
    FEWEST = 16
    """Losses in each half without which no fall is believed."""
    BLOCK = 16

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=2 * self.RECENT)
        self._block: list[float] = []
        self._blocks: deque[float] = deque(maxlen=16)
        self._unreported: deque[float] = deque(maxlen=1024)
        self._nonfinite = 0
        self.seen = 0
        """Losses that were observed."""

    @property
    def recent(self) -> Sequence[float]:
        """The last 64 losses, oldest first."""
        return tuple(self._recent)

    def recall(self, recent: Sequence[float]) -> None:
        """The run is back where `recent` was read: what came since says nothing about it."""
        self._recent.clear()
        self._recent.extend(recent)

    def observe(self, loss: float) -> None:
        """Take the loss of a step."""
        self.seen += 1
        self._recent.append(loss)
        if not math.isfinite(loss):
            self._nonfinite += 1
            return
        self._unreported.append(loss)
        self._block.append(loss)
        if len(self._block) == self.BLOCK:
            self._blocks.append(median(self._block))
            self._block.clear()

    def level(self, count: int = RECENT) -> float | None:
        """Median of the last losses, `None` if half of them are not finite.

        Args:
            count: How many of the last 64.
        """
        recent = list(self._recent)[-count:]
        finite = [loss for loss in recent if math.isfinite(loss)]
        return median(finite) if len(finite) * 2 > len(recent) else None

    def since_jump(self, bound: float) -> int:
        """How many of the last 64 losses came after a jump; 0 if the loss is not up now.

        After a loss that is not finite only such losses count. A single high one is no jump yet:
        it may be a spike.

        Args:
            bound: Losses up to this one are not high.
        """
        latest = self._recent
        broken = _count_last(latest, lambda loss: not math.isfinite(loss))
        high = _count_last(latest, lambda loss: not (math.isfinite(loss) and loss <= bound))
        return broken or (high if high > 1 else 0)

    def spread(self) -> float:
        """Robust standard deviation of the last 32 losses; 0 without finite ones."""
        finite = [loss for loss in list(self._recent)[-self.RECENT :] if math.isfinite(loss)]
        return robust_spread(finite, median(finite)) if finite else 0.0

    def noise(self, count: int = 2 * RECENT) -> float:
        """Standard deviation of the last losses about their trend; 0 without finite ones.

        Read off the differences of neighbours, which a trend hardly touches.

        Args:
            count: How many of the last 64.
        """
        last = list(self._recent)[-count:]
        steps = [abs(after - before) for before, after in itertools.pairwise(last)]
        finite = [step for step in steps if math.isfinite(step)]
        return MAD_TO_DEVIATION * median(finite) / math.sqrt(2) if finite else 0.0

    def pace(self) -> float:
        """By how much the median of the last 32 losses is below that of the 32 before them.

        0 unless the fall is beyond doubt: more than six times its standard error. With fewer than
        64 losses the halves of what there is are compared.
        """
        losses = list(self._recent)
        half = len(losses) // 2
        if half < self.FEWEST or not all(map(math.isfinite, losses)):
            return 0.0
        fall = median(losses[:half]) - median(losses[half:])
        doubt = SIGNIFICANT * error_of_median(self.noise(), half) * math.sqrt(2)
        return fall / half * self.RECENT if fall > doubt else 0.0

    @property
    def slow_level(self) -> float | None:
        """Median over the last 256 steps, in blocks of 16; `None` before the first block."""
        return median(self._blocks) if self._blocks else None

    def report(self) -> tuple[float | None, int]:
        """Median loss and number of non-finite ones since the last report."""
        loss = median(self._unreported) if self._unreported else None
        nonfinite, self._nonfinite = self._nonfinite, 0
        self._unreported.clear()
        return loss, nonfinite
