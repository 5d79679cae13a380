"""Rewards of one live run: messages from the host in, closed decision intervals out.

The interval's measurements are put together here; what they are worth is computed by the same
`MultiMetricRewardSystem` that serves hundreds of simulated runs.
"""

import math
from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np

from tamiyo.contracts import AdaptationResult, ModelTopology, Outcome, PerformanceMetrics
from tamiyo.learn.rewards.alone import Baseline, RunAlone
from tamiyo.learn.rewards.config import BANDS, RewardConfig
from tamiyo.learn.rewards.constraints import only_restore
from tamiyo.learn.rewards.forecast import LearningCurve
from tamiyo.learn.rewards.horizons import attribute
from tamiyo.learn.rewards.measurements import Mask, Measurements
from tamiyo.learn.rewards.quality import Metric, QualityScale
from tamiyo.learn.rewards.system import MultiMetricRewardSystem, Rewards

__all__ = ["LiveRewards"]

_CHANGED = (Outcome.APPLIED, Outcome.KEPT, Outcome.ROLLED_BACK)
"""Outcomes after which a run is not the one that was left alone."""


@dataclass
class _Interval:
    """What arrived since the last boundary."""

    start: int
    quality: float = math.nan
    measured_at: int = 0
    unstable: list[bool] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)
    paused: float = 0.0


class LiveRewards:
    """Turns the messages of a run into rewards, one interval of fixed length in steps at a time.

    Until the first adaptation is applied the run *is* the one that was left alone: it equals its
    twin, and its reports are the history that the twin is forecast from. At that moment the twin is
    fixed for as long as this object lives, over any number of episodes, because a baseline that is
    made anew could be lowered by doing damage first. A run that is changed with fewer than
    `MIN_HISTORY` evaluations behind it, or while its forecast is too uncertain, has no known twin:
    its rewards are not `valid`, and `allowed()` is there to prevent it.

    Messages of one kind must come in the order in which the host sent them. An episode that is over
    is followed by the next one. After a silence of more than an episode the rest of it is skipped.

    Args:
        run: Name of the run; messages of others are ignored.
        scale: How its evaluations become quality.
        interval_steps: Optimiser steps between decision moments.
        config: Weights, scales and limits.

    Raises:
        ValueError: an interval shorter than one step.
    """

    def __init__(
        self,
        run: str,
        scale: QualityScale,
        *,
        interval_steps: int,
        config: RewardConfig | None = None,
    ) -> None:
        if interval_steps < 1:
            raise ValueError("an interval has at least one step")
        self.run = run
        self.scale = scale
        self.interval_steps = interval_steps
        self.system = MultiMetricRewardSystem(1, config)
        self.baseline: Baseline | None = None
        """The twin, once the run has been changed and if it can be known."""
        self.changed_at: int | None = None
        """Step at which the run was changed for the first time."""
        self._alone = RunAlone()
        self._known = False
        self._sizes: list[int] = []  # parameters in the first and in the latest topology
        self._last: PerformanceMetrics | None = None
        self._now: _Interval | None = None
        self._paused, self._rollbacks = 0.0, 0
        self._acting = ""
        self._closed: list[tuple[str, float]] = []

    @property
    def ready(self) -> bool:
        """Whether the run's twin is known, or would be if the run were changed now."""
        return self._sure(self._alone.curve) if self.changed_at is None else self._known

    def allowed(self) -> Mask:
        """[types]: actions that the constraints leave open at this moment."""
        mask = self.system.allowed() & only_restore(np.array([not self.ready]))
        return np.asarray(mask[0], dtype=np.bool_)

    def observe(
        self, message: PerformanceMetrics | AdaptationResult | ModelTopology
    ) -> list[Rewards]:
        """Take a message; returns the intervals (of one run) that it closed, mostly none."""
        if message.run != self.run:
            return []
        if isinstance(message, ModelTopology):
            size = sum(node.parameters for node in message.nodes)
            self._sizes = [self._sizes[0] if self._sizes else size, size]
        elif isinstance(message, AdaptationResult):
            self._take_result(message)
        else:
            return self._take_metrics(message)
        return []

    def attribution(self) -> dict[str, dict[str, float]]:
        """What each decision of the episode is credited with, by band; "" is before the first.

        All numbers together are the return of the intervals closed so far. Of two decisions applied
        within one interval the later one is credited.
        """
        if not self._closed:
            return {}
        names = [name for name, _ in self._closed]
        acted = np.array(
            [name != before for before, name in zip(["", *names], names, strict=False)]
        )
        rewards = np.array([reward for _, reward in self._closed])
        shares = attribute(rewards[:, None], acted[:, None], self.system.config.horizons)
        told = {"": dict.fromkeys(BANDS, 0.0) | {BANDS[0]: float(shares.unattributed[0])}}
        for index in np.flatnonzero(acted):
            told[names[index]] = dict(zip(BANDS, shares.credit[index, 0].tolist(), strict=True))
        return told

    def _take_result(self, result: AdaptationResult) -> None:
        self._rollbacks += result.outcome in (Outcome.ROLLED_BACK, Outcome.FAILED)
        self._paused += result.duration_ms / 1000
        if result.outcome not in _CHANGED:
            return
        if result.outcome is Outcome.APPLIED:
            self._acting = result.decision_id
        if self.changed_at is None:
            self.changed_at = result.step
            self.baseline = self._alone.freeze(result.step)
            self._known = self._sure(self.baseline.curve if self.baseline else None)
            self.system.invalidate(np.array([not self._known]))

    def _sure(self, curve: LearningCurve | None) -> bool:
        """Whether a forecast says enough about the end of an episode that begins at its end."""
        if curve is None:
            return False
        config = self.system.config
        end = curve.last_step + self.interval_steps * config.episode_length
        return float(curve.at(end).standard_error[0]) <= config.forecast_error_limit

    def _take_metrics(self, metrics: PerformanceMetrics) -> list[Rewards]:
        if self._now is None:
            self._now = _Interval(metrics.step)
        self._measure(metrics, self._now)
        ended = (metrics.step - self._now.start) // self.interval_steps
        if ended < 1:
            return []
        # What was measured belongs to the last interval that has ended and speaks for the others.
        unknown = Measurements.of([math.nan], math.nan)
        silent = min(ended - 1, self.system.config.episode_length)
        skipped = [self._close(unknown) for _ in range(silent)]
        last = self._close(self._measurements(self._now, metrics.step))
        self._now = _Interval(self._now.start + ended * self.interval_steps)
        return [*skipped, last]

    def _close(self, measurements: Measurements) -> Rewards:
        if self.system.over[0]:
            self.system.reset(gap=self.system.levels[:, 0])
            self.system.invalidate(np.array([self.changed_at is not None and not self._known]))
            self._closed.clear()
        rewards = self.system.step(measurements)
        self._closed.append((self._acting, float(rewards.reward[0])))
        return rewards

    def _measure(self, metrics: PerformanceMetrics, now: _Interval) -> None:
        """Add a report to the interval, and to the history while the run is alone."""
        unstable = metrics.loss_nonfinite > 0 or metrics.alarm is not None
        quality, pace = self._quality(metrics), self._pace(metrics)
        now.paused += self._paused
        self._last, self._paused = metrics, 0.0
        now.unstable.append(unstable)
        if not math.isnan(pace):
            now.paces.append(pace)
        if not math.isnan(quality):
            now.quality, now.measured_at = quality, metrics.step
        if self.changed_at is None:
            self._alone.observe(metrics.step, quality=quality, unstable=unstable, pace=pace)

    def _quality(self, metrics: PerformanceMetrics) -> float:
        accuracy = self.scale.metric is Metric.ACCURACY
        value = metrics.validation_accuracy if accuracy else metrics.validation_loss
        # A loss that is absent because it was not finite is the worst there is, not a missing one.
        diverged = value is None and metrics.loss is None and metrics.loss_nonfinite > 0
        return float(self.scale.quality(math.nan if value is None else value, diverged))

    def _pace(self, metrics: PerformanceMetrics) -> float:
        """Seconds per step since the last report, but for what adaptations took.

        NaN where the clock or the step stood still.
        """
        if self._last is None or metrics.step <= self._last.step:
            return math.nan
        seconds = metrics.timestamp - self._last.timestamp - self._paused
        return seconds / (metrics.step - self._last.step) if seconds > 0 else math.nan

    def _measurements(self, now: _Interval, step: int) -> Measurements:
        """The interval, beside what the twin did in it."""
        unstable = fmean(now.unstable)
        twin_quality, twin_error = self._twin_quality(now)
        compute, memory, twin_unstable = math.nan, math.nan, math.nan
        if self.changed_at is None:
            compute, memory, twin_unstable = 1.0, 1.0, unstable
        elif self.baseline is not None:
            pace = median(now.paces) if now.paces else math.nan
            compute = (pace + now.paused / (step - now.start)) / self.baseline.pace
            memory = self._sizes[-1] / max(self._sizes[0], 1) if self._sizes else math.nan
            twin_unstable = self.baseline.unstable
        rollbacks, self._rollbacks = self._rollbacks, 0
        return Measurements.of(
            [now.quality],
            twin_quality,
            twin_error=twin_error,
            compute=compute,
            memory=memory,
            unstable=unstable,
            twin_unstable=twin_unstable,
            rollbacks=rollbacks,
        )

    def _twin_quality(self, now: _Interval) -> tuple[float, float]:
        """Quality of the twin at the interval's evaluation, and its standard error."""
        if self.changed_at is None or now.measured_at <= self.changed_at:
            return now.quality, 0.0
        if self.baseline is None:
            return math.nan, 0.0
        forecast = self.baseline.curve.at(now.measured_at)
        return float(forecast.mean[0]), float(forecast.standard_error[0])
