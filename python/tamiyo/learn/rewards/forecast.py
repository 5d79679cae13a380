"""How good a run would have become if it had been left alone: a learning curve, extrapolated.

The curve is a power law with an offset that begins flat, `c - a / (1 + (t/κ)^b)`, known as the
Morgan-Mercer-Flodin curve; far beyond κ it is `c - a' t^-b`. Of the families compared on curves
over the number of samples it is among the best to extrapolate with (Mohr, Viering, Loog and van
Rijn, "LCDB 1.0", ECML PKDD 2022); here it is one over training steps. Given κ and b it is linear,
so no optimiser can fail: every pair of a grid is fitted, and the fits are averaged with their
likelihoods as weights.

Its own residuals say little about how wrong an extrapolation is, because the family is never quite
right and the noise is not independent. So the history itself is asked: it is forecast from several
earlier moments. Errors beyond those expected, over the squared distance in log t, become a drift
that the standard error grows by; half of what the errors have in common is added to the forecast,
because slow learners are underrated as long as they have hardly begun.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tamiyo.learn.rewards.measurements import Array

__all__ = ["MIN_HISTORY", "Forecast", "LearningCurve"]

MIN_HISTORY = 20
"""Evaluations below which no forecast is made."""

DEGREES_OF_FREEDOM = 4
"""Of Student's distribution in the intervals: so few of the backtests are independent."""

_KAPPA = np.geomspace(0.02, 4.0, 10)
_POWER = np.array([0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5])
_GRID = np.stack(np.meshgrid(_KAPPA, _POWER), -1).reshape(-1, 2)
_ORIGINS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the history from which the rest of it is forecast."""
_SHORTEST = 8
"""Evaluations that a backtest starts from at least."""
_RESOLUTION = 1e-3
"""Quality below which errors do not matter; keeps noise-free curves finite."""
_HUBER = 2.0
"""Robust standard deviations from which a residual's weight falls."""
_REWEIGHTED = 10
_SHRUNK = 0.5
"""Part of the backtests' common error that is believed."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """Quality expected at some steps, each array [S]."""

    mean: Array
    standard_error: Array
    """Of a single evaluation at that step around `mean`: curve, drift and evaluation noise."""

    def interval(self, level: float) -> tuple[Array, Array]:
        """Bounds that hold an evaluation with probability `level`, each [S].

        Raises:
            ValueError: a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"a level must lie in (0, 1), got {level}")
        reach = _student_t4(0.5 + level / 2) * self.standard_error
        return self.mean - reach, self.mean + reach


class LearningCurve:
    """The forecast of one run, fixed when it is made: what comes later cannot move it.

    Args:
        steps: [n] optimiser steps of the evaluations, increasing and positive.
        quality: [n] in [0, 1]; NaN where the evaluation is missing.

    Raises:
        ValueError: fewer than `MIN_HISTORY` evaluations, shapes that differ, or steps that do not
            increase.
    """

    def __init__(self, steps: npt.ArrayLike, quality: npt.ArrayLike) -> None:
        times = np.asarray(steps, dtype=np.float64)
        values = np.asarray(quality, dtype=np.float64)
        if times.shape != values.shape or times.ndim != 1:
            raise ValueError(f"steps {times.shape} and quality {values.shape} must both be [n]")
        if np.any(np.diff(times) <= 0) or np.any(times <= 0):
            raise ValueError("steps must be positive and increase")
        known = ~np.isnan(values)
        times, values = times[known], values[known]
        if len(values) < MIN_HISTORY:
            raise ValueError(f"{len(values)} evaluations, {MIN_HISTORY} are needed for a forecast")
        self.last_step = float(times[-1])
        self._fit = _Fit(times, values)
        trend, self.drift = _backtest(times, values)
        """Standard error that is added per unit of log t."""
        self.trend = _SHRUNK * trend
        """Correction of the mean per unit of log t."""

    def at(self, steps: npt.ArrayLike) -> Forecast:
        """Forecast for steps [S] that are not before the history's end."""
        later = np.atleast_1d(np.asarray(steps, dtype=np.float64))
        if np.any(later < self.last_step):
            raise ValueError(f"the history goes to step {self.last_step:g}, forecast from there on")
        mean, variance = self._fit.predict(later)
        distance = np.log(later / self.last_step)
        mean = np.clip(mean + self.trend * distance, 0.0, 1.0)
        return Forecast(mean, np.sqrt(variance + (self.drift * distance) ** 2))


class _Fit:
    """Robust weighted least squares of `c + a φ(t)`, a ≤ 0, for every φ of the grid."""

    def __init__(self, times: Array, values: Array) -> None:
        self._scale = times[-1]
        basis = self._basis(times)
        recency = (times / self._scale) ** 2  # the recent part is what is extrapolated
        weights = recency
        for _ in range(_REWEIGHTED):
            residuals = self._solve(basis, values, weights)
            best = residuals[(weights * residuals**2).sum(1).argmin()]
            spread = 1.4826 * np.median(np.abs(best)) + _RESOLUTION
            outlying = np.abs(best) / (_HUBER * spread)
            weights = recency / np.maximum(outlying, 1.0) ** 2
        residuals = self._solve(basis, values, weights)

        total = weights.sum()
        self._effective = total**2 / (weights**2).sum()
        squares = (weights * residuals**2).sum(1) / total + _RESOLUTION**2
        freedom = max(self._effective - 4, 1.0)  # c, a, κ and b
        log_likelihood = -0.5 * freedom * np.log(squares)
        likelihood = np.exp(log_likelihood - log_likelihood.max())
        self._share = (likelihood / likelihood.sum())[:, None]
        self._noise = (squares * self._effective / freedom)[:, None]

    def predict(self, times: Array) -> tuple[Array, Array]:
        """Mean and variance [S] of an evaluation, over the noise and over all fits."""
        offset = self._basis(times) - self._basis_mean[:, None]
        means = self._mean + self._slope[:, None] * offset
        leverage = 1 / self._effective + offset**2 / (self._effective * self._basis_variance)
        mean = (self._share * means).sum(0)
        spread = (means - mean) ** 2
        return mean, (self._share * (self._noise * (1 + leverage) + spread)).sum(0)

    def _basis(self, times: Array) -> Array:
        kappa, power = _GRID[:, 0, None], _GRID[:, 1, None]
        return np.asarray(1 / (1 + (times / self._scale / kappa) ** power))

    def _solve(self, basis: Array, values: Array, weights: Array) -> Array:
        """Fit all of the grid with the same weights; returns residuals [K, n]."""
        shares = weights / weights.sum()
        self._mean = float(shares @ values)
        self._basis_mean = basis @ shares
        centred = basis - self._basis_mean[:, None]
        self._basis_variance = (centred**2 @ shares + 1e-12)[:, None]
        slope = (centred * (values - self._mean)) @ shares / self._basis_variance[:, 0]
        # A run that is left alone does not get worse for good, and ends at quality 1 at best.
        steepest = np.minimum((1 - self._mean) / np.maximum(self._basis_mean, 1e-9), 1.0)
        self._slope = np.clip(slope, -steepest, 0.0)
        return np.asarray(values - self._mean - self._slope[:, None] * centred)


def _backtest(times: Array, values: Array) -> tuple[float, float]:
    """Errors of forecasts of the history, per unit of log t.

    Returns:
        Their mean, and the scatter that the fits did not expect.
    """
    starts = {max(_SHORTEST, round(len(times) * share)) for share in _ORIGINS}
    trends, drifts = [], []
    for start in sorted(starts - {len(times)}):
        mean, variance = _Fit(times[:start], values[:start]).predict(times[start:])
        errors = values[start:] - mean
        distance = np.log(times[start:] / times[start - 1])
        scale = distance @ distance
        trends.append(np.median(errors / distance))
        drifts.append(np.maximum(errors**2 - variance, 0.0).sum() / scale)
    return float(np.mean(trends)), math.sqrt(np.mean(drifts))


def _student_t4(probability: float) -> float:
    """Quantile of Student's t with 4 degrees of freedom, which has a closed form (Shaw, 2006)."""
    alpha = 4 * probability * (1 - probability)
    root = math.cos(math.acos(math.sqrt(alpha)) / 3) / math.sqrt(alpha)
    return math.copysign(2 * math.sqrt(max(root - 1, 0.0)), probability - 0.5)
