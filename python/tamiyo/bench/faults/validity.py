"""Whether a run is faulty at all: significantly worse than ten clean twins, and by enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from scipy.stats import t  # type: ignore[import-untyped] # it has no stubs

__all__ = ["ALPHA", "POINTS", "TWINS", "Comparison", "compare"]

TWINS = 10
"""Clean runs with other seeds that a faulty run is compared with."""
ALPHA = 0.01
"""A healthy run would be held for a faulty one so often, if it were not for `POINTS`."""
POINTS = 0.02
"""Accuracy that a fault must cost; what has come back to within this is repaired."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside its clean twins.

    Attributes:
        lost: Accuracy below the mean of the twins.
        deviations: The same in standard deviations of the twins; infinite where they are equal.
        p_value: That a clean run would be so much worse.
    """

    lost: float
    deviations: float
    p_value: float

    @property
    def faulty(self) -> bool:
        """Whether it is worse beyond doubt, and by enough to matter."""
        return self.p_value < ALPHA and self.lost >= POINTS


def compare(accuracy: float, clean: Sequence[float]) -> Comparison:
    """A single run against a sample: the t test of Crawford & Howell (1998), one-sided.

    *Comparing an individual's test score against norms derived from small samples*, The Clinical
    Neuropsychologist 12: t = (x - mean) / (s sqrt(1 + 1 / n)), with n - 1 degrees of freedom.

    Args:
        accuracy: Of the run.
        clean: Of its twins, at least two.

    Raises:
        ValueError: fewer than two twins.
    """
    if len(clean) < 2:
        raise ValueError("a run cannot be compared with fewer than two clean twins")
    mean, deviation = float(np.mean(clean)), float(np.std(clean, ddof=1))
    lost = mean - accuracy
    if deviation == 0:
        return Comparison(lost, inf if lost > 0 else 0.0, 0.0 if lost > 0 else 1.0)
    statistic = lost / (deviation * sqrt(1 + 1 / len(clean)))
    return Comparison(lost, lost / deviation, float(t.sf(statistic, len(clean) - 1)))
