"""The health score of a layer: a product of sub-scores from published rules.

Each sub-score is 1 inside a healthy band and 0 beyond a failing bound, and falls in a straight line
over the logarithm of the measurement in between. The bounds are alarms of published detectors:
healthy ends where the strictest of them starts to warn, failing starts where the most tolerant one
does. Sources:

- AutoTrainer: Zhang et al., ICSE 2021 (dead share .7, gradient ratio 1e-3 and 70).
- SageMaker Debugger: Rauschmayr et al., MLSys 2021 (dead share .5, update ratio 1e-8 and 10).
- DeepDiagnosis: Wardat et al., ICSE 2022 (saturation > .5, weight variance 1e-5).
- TheDeepChecker: Ben Braiek & Khomh, 2022 (update ratio 1e-4..1e-1, saturation .85,
  activation standard deviation .5..2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BANDS", "Band", "health_scores", "relative_gradients"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """Bounds of one measurement, `fail_low < low <= high < fail_high`; ends may be open."""

    low: float = 0.0
    high: float = np.inf
    fail_low: float = 0.0
    fail_high: float = np.inf

    def score(self, values: FloatArray) -> FloatArray:
        """1 in the band, 0 beyond the failing bounds, log-linear between; NaN stays NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(values)
            score = np.where(np.isnan(values), np.nan, 1.0)
            if self.low > 0:
                below = (logs - np.log(self.fail_low)) / np.log(self.low / self.fail_low)
                score = np.minimum(score, np.clip(below, 0, 1))
            if np.isfinite(self.high):
                above = (np.log(self.fail_high) - logs) / np.log(self.fail_high / self.high)
                score = np.minimum(score, np.clip(above, 0, 1))
        return score


BANDS: Mapping[str, Band] = {
    "dead_neuron_ratio": Band(high=0.5, fail_high=0.7),
    "relative_gradient": Band(low=0.1, high=10, fail_low=1e-3, fail_high=70),
    "update_ratio": Band(low=1e-4, high=1e-1, fail_low=1e-8, fail_high=10),
    "saturation": Band(high=0.5, fail_high=0.85),
    "activation_variance": Band(low=0.25, high=4, fail_low=1e-5, fail_high=1e5),
}
"""Bands by measurement. No detector publishes where a relative gradient stops being healthy; a
decade to either side of the network's median is ours, as is the tolerance for a large variance."""


def relative_gradients(gradient_norm: FloatArray, parameters: FloatArray) -> FloatArray:
    """Root-mean-square gradient of each layer over the network's median.

    Args:
        gradient_norm: L2 norms, shape [N], NaN where not measured.
        parameters: Numbers of scalar parameters, shape [N]; layers of different size differ in
            norm without anything being wrong.

    Returns:
        Ratios, shape [N]; NaN with fewer than two measured layers or a median of zero.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        rms = gradient_norm / np.sqrt(parameters)
    measured = np.isfinite(rms)
    if measured.sum() < 2:
        return np.full_like(rms, np.nan)
    median = np.median(rms[measured])
    if median == 0:
        return np.full_like(rms, np.nan)
    return np.where(measured, rms / median, np.nan)


def health_scores(
    measurements: Mapping[str, npt.NDArray[Any]],
    parameters: npt.NDArray[Any],
    error_count: npt.NDArray[Any],
) -> tuple[FloatArray, FloatArray]:
    """Health of N layers and how much of it was measured.

    Args:
        measurements: Columns of a signal batch, shape [N] each, NaN where not measured:
            `dead_neuron_ratio`, `gradient_norm`, `update_ratio`, `saturation`,
            `activation_variance`. A missing column counts as not measured.
        parameters: Scalar parameters per layer, shape [N].
        error_count: Errors since the last signal, shape [N]; any error makes the score 0.

    Returns:
        `(score, measured)`, both shape [N]: the product of the sub-scores that could be computed
        (NaN if none could and there was no error), and their share of all sub-scores.
    """
    size = len(parameters)
    missing = np.full(size, np.nan)
    inputs = {name: np.asarray(measurements.get(name, missing), np.float64) for name in BANDS}
    norms = np.asarray(measurements.get("gradient_norm", missing), np.float64)
    inputs["relative_gradient"] = relative_gradients(norms, np.asarray(parameters, np.float64))
    scores = np.stack([band.score(inputs[name]) for name, band in BANDS.items()])
    measured = ~np.isnan(scores)
    score = np.where(measured, scores, 1.0).prod(axis=0)
    score = np.where(measured.any(axis=0), score, np.nan)
    return np.where(np.asarray(error_count) > 0, 0.0, score), measured.mean(axis=0)
