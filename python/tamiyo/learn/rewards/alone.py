"""What a live run was like before anything was done to it: all that is known of its twin."""

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from statistics import fmean, median

from tamiyo.learn.rewards.forecast import MIN_HISTORY, LearningCurve

__all__ = ["Baseline", "RunAlone"]

_RECENT = 8
"""Reports that the twin's share of unstable ones is taken from."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """The twin of a run that was changed, fixed at that moment. NaN is *never measured*."""

    curve: LearningCurve
    """Its quality."""
    pace: float
    """Its seconds per optimiser step."""
    unstable: float
    """Share of its reports that are unstable."""


@dataclass
class RunAlone:
    """Collects reports of a run until its first change is known."""

    steps: list[int] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    unstable: list[tuple[int, bool]] = field(default_factory=list)
    paces: list[tuple[int, float]] = field(default_factory=list)
    _fitted: tuple[int, LearningCurve] | None = None

    def observe(self, step: int, *, quality: float, unstable: bool, pace: float) -> None:
        """Take a report; NaN where it did not measure."""
        self.unstable.append((step, unstable))
        if not math.isnan(pace):
            self.paces.append((step, pace))
        # A curve needs increasing times; a second evaluation of the same step says nothing new.
        if not math.isnan(quality) and step > (self.steps[-1] if self.steps else 0):
            self.steps.append(step)
            self.quality.append(quality)

    @property
    def curve(self) -> LearningCurve | None:
        """The forecast from all evaluations so far; `None` while there are too few."""
        return self._curve_of(len(self.steps))

    def freeze(self, step: int) -> Baseline | None:
        """The twin of a run that was changed after this step; `None` if it cannot be known.

        Reports may overtake the news of the change, so later ones are left out.
        """
        curve = self._curve_of(bisect_right(self.steps, step))
        if curve is None:
            return None
        paces = [pace for at, pace in self.paces if at <= step]
        unstable = [unstable for at, unstable in self.unstable if at <= step]
        return Baseline(
            curve=curve,
            pace=median(paces) if paces else math.nan,
            unstable=fmean(unstable[-_RECENT:]),
        )

    def _curve_of(self, count: int) -> LearningCurve | None:
        if count < MIN_HISTORY:
            return None
        if self._fitted is None or self._fitted[0] != count:
            self._fitted = count, LearningCurve(self.steps[:count], self.quality[:count])
        return self._fitted[1]
