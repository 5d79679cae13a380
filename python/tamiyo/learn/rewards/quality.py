"""Held-out quality on one scale for every task: 0 at chance level, 1 at perfect."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = ["Metric", "QualityScale"]

Array = npt.NDArray[np.float64]


class Metric(StrEnum):
    """What the held-out data is judged by."""

    ACCURACY = "accuracy"
    LOSS = "loss"


@dataclass(frozen=True, slots=True)
class QualityScale:
    """Turns a held-out metric into quality in [0, 1].

    One episode uses one metric: switching between two of them in mid-run would let the better one
    be picked. Both ends are clipped, so that a run that exploded is worth exactly as much as one
    that never learned, and no more is at stake than can be measured.

    Attributes:
        metric: Which metric.
        chance: Its value for a predictor that ignores the inputs: the share of the largest class,
            or the entropy of the class frequencies (`log(classes)` if they are balanced).

    Raises:
        ValueError: a chance level that leaves no room to be better.
    """

    metric: Metric
    chance: float

    def __post_init__(self) -> None:
        accuracy = self.metric is Metric.ACCURACY
        if not (0 <= self.chance < 1 if accuracy else 0 < self.chance < float("inf")):
            raise ValueError(f"{self.chance} is no chance level of {self.metric}")

    def quality(self, values: npt.ArrayLike, diverged: npt.ArrayLike = False) -> Array:
        """Quality of each value.

        Args:
            values: Accuracies or losses, of any shape; NaN where there was no evaluation.
            diverged: Broadcastable to `values`: runs whose network no longer computes finite
                numbers. Their quality is 0, which is a measurement and not a missing one.

        Returns:
            The same shape, in [0, 1]; NaN where missing. An infinite loss is 0.
        """
        raw = np.asarray(values, dtype=np.float64)
        if self.metric is Metric.ACCURACY:
            scaled = (raw - self.chance) / (1 - self.chance)
        else:
            scaled = 1 - raw / self.chance
        return np.where(diverged, 0.0, np.clip(scaled, 0.0, 1.0))
