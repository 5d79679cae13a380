"""Intervals by the bootstrap over evaluation seeds.

Runs of one seed resemble each other, so that whole seeds are drawn with replacement; drawing the
runs within them as well would count their spread twice (Davison & Hinkley, *Bootstrap Methods and
their Application*, 1997, section 3.8). Of S seeds, S - 1 are drawn, with which the variance of a
mean is right also where seeds are few (Rao & Wu, *Resampling inference with complex survey data*,
JASA 83, 1988). Intervals are percentile intervals. All cohorts share the draws, because they played
the same runs: differences are paired.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["RESAMPLES", "Figure", "Resampler"]

Floats: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, its 95 % interval, and how many runs or decisions it is of; NaN is unknown."""

    value: float
    low: float
    high: float
    count: int

    def as_json(self) -> dict[str, float | int | None]:
        """Plain values; what is unknown is `None`."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        known = {name: x if np.isfinite(x) else None for name, x in numbers.items()}
        return {**known, "count": self.count}


class Resampler:
    """How often each run is drawn in each resample; the first row is the sample itself.

    Args:
        clusters: [R], the evaluation seed of each run. Where there is only one, runs are drawn.
        resamples: Number of draws.
        seed: Of the draws.

    Raises:
        ValueError: no runs.
    """

    def __init__(
        self, clusters: npt.NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0
    ) -> None:
        if not len(clusters):
            raise ValueError("there are no runs to resample")
        names, cluster_of = np.unique(clusters, return_inverse=True)
        if len(names) == 1:
            cluster_of = np.arange(len(clusters))
        count = int(cluster_of.max()) + 1
        shares = np.full(count, 1 / count)
        drawn = np.random.default_rng(seed).multinomial(max(count - 1, 1), shares, size=resamples)
        self.weights: Floats = np.ones((resamples + 1, len(clusters)))
        """[resamples + 1, R]."""
        self.weights[1:] = drawn[:, cluster_of]

    def ratio(self, numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> Figure:
        """Weighted sum of one column [R] over that of another, where that is not zero."""
        return self._ratios(numerator[:, None], denominator[:, None])[0]

    def mean(self, values: npt.NDArray[Any]) -> Figure:
        """Mean of values [R] over all runs."""
        return self.ratio(values, np.ones(len(values)))

    def means(
        self, measures: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]
    ) -> dict[str, Figure]:
        """Means of values [R] over the runs that a mask [R] chooses, by name."""
        masks = np.stack([mask for _, mask in measures.values()], axis=1)
        values = np.stack([values for values, _ in measures.values()], axis=1)
        figures = self._ratios(np.where(masks, values, 0.0), masks.astype(np.float64))
        return dict(zip(measures, figures, strict=True))

    def _ratios(self, numerators: npt.NDArray[Any], denominators: npt.NDArray[Any]) -> list[Figure]:
        """Of columns [R, M]; all at once, because reading the weights takes the time."""
        top, bottom = self.weights @ numerators, self.weights @ denominators
        values = np.full(top.shape, np.nan)
        np.divide(top, bottom, out=values, where=bottom != 0)
        counts = np.count_nonzero(denominators, axis=0).tolist()
        return [self.figure(column, count) for column, count in zip(values.T, counts, strict=True)]

    def statistic(self, function: Callable[[Floats], Floats], count: int) -> Figure:
        """Of a function from weights [W, R] to values [W]."""
        return self.figure(function(self.weights), count)

    def figure(self, values: Floats, count: int) -> Figure:
        """From the value of the sample, followed by those of the resamples.

        Resamples without a value (of a group that was not drawn) do not count.
        """
        tail = (1 - COVERAGE) / 2
        known = values[1:][~np.isnan(values[1:])]
        if np.isnan(values[0]) or not len(known):
            return Figure(float(values[0]), np.nan, np.nan, count)
        low, high = np.quantile(known, [tail, 1 - tail])
        return Figure(float(values[0]), float(low), float(high), count)
