"""What the runs of a cohort are worth: the objective of `tamiyo.learn.rewards`, beside their twins.

Quality is held-out accuracy, 0 at the share of the largest class and 1 at perfect. Compute is the
number of multiplications that a sample takes, memory the number of parameters, both over the
twin's. A step is unstable whose loss is not finite, or far beyond that of knowing nothing.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.course import Quality
from tamiyo.envs.training.measurements import multiplications, parameter_counts
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.learn.rewards import Measurements, Metric, MultiMetricRewardSystem, QualityScale

__all__ = ["Objective"]

Floats: TypeAlias = npt.NDArray[np.float64]

FAR_OFF = 2.0
"""Loss, in that of equal probabilities for all classes, beyond which a step is unstable."""


class Objective:
    """J of H runs since the first decision, where it is 0.

    Args:
        cohort: The runs, nothing done to them yet.
        config: What episodes are made of.
    """

    def __init__(self, cohort: Cohort, config: TrainingConfig) -> None:
        length = {"episode_length": config.decisions}
        self.system = MultiMetricRewardSystem(
            cohort.hosts, config.rewards.model_copy(update=length)
        )
        """What weighs the measurements."""
        self.quality = self.twin_quality = np.full(cohort.hosts, np.nan)
        """[H], on the scale from chance to perfect, at the last measurement."""
        self._cohort = cohort
        data = [spec.dataset for spec in cohort.specs]
        chances = [
            np.bincount(one.held_out_labels).max() / len(one.held_out_labels) for one in data
        ]
        self._scales = [QualityScale(Metric.ACCURACY, float(chance)) for chance in chances]
        self._far_off = FAR_OFF * np.log([one.classes for one in data])[:, None]
        self._size_alone = self._size()

    @property
    def value(self) -> Floats:
        """[H]: the present J."""
        return self.system.objective

    def judge(self, present: Quality, twin: Quality) -> None:
        """Take how good the runs and their twins are."""
        self.quality, self.twin_quality = self._scaled(present), self._scaled(twin)

    def step(self, present: Quality, twin: Quality, losses: Floats, twin_losses: Floats) -> None:
        """Take an interval.

        Args:
            present: The runs at its end.
            twin: Their twins.
            losses: [H, k], of the interval's steps, NaN and all.
            twin_losses: The same of the twins.
        """
        self.judge(present, twin)
        compute, memory = self._size() / self._size_alone
        self.system.step(
            Measurements.of(
                self.quality,
                self.twin_quality,
                compute=compute,
                memory=memory,
                unstable=self._unstable(losses),
                twin_unstable=self._unstable(twin_losses),
            )
        )

    def _scaled(self, quality: Quality) -> Floats:
        pairs = zip(self._scales, quality.accuracy, strict=True)
        return np.array([scale.quality(accuracy) for scale, accuracy in pairs])

    def _size(self) -> Floats:
        """[2, H]: multiplications and parameters."""
        nodes = 2 * self._cohort.layout.levels + 1
        parameters = np.nansum(parameter_counts(self._cohort, nodes), axis=1)
        return np.stack([multiplications(self._cohort), parameters])

    def _unstable(self, losses: Floats) -> Floats:
        # NaN is beyond everything.
        unstable: Floats = np.mean(~(losses <= self._far_off), axis=1)
        return unstable
