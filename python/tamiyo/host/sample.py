"""What the probe saw of one training step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import Flag
from tamiyo.contracts.reach import cut_off

__all__ = ["Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured step: columns of N layers, NaN where not measured."""

    step: int
    columns: dict[str, npt.NDArray[Any]]
    measured: npt.NDArray[np.float64]
    """Per layer the share of the health score's inputs that was measured."""

    @property
    def health(self) -> float:
        """Mean health score of the layers that have one; NaN if none has."""
        scores = self.columns["health_score"]
        known = scores[~np.isnan(scores)]
        return float(known.mean()) if known.size else float("nan")

    @property
    def gradient_norm(self) -> float:
        """L2 norm over all layers; NaN if none was measured, infinite if one was not finite."""
        if (self.columns["flags"] & Flag.NONFINITE_GRADIENT).any():
            return float("inf")
        norms = self.columns["gradient_norm"]
        return float(np.sqrt(np.nansum(norms**2))) if np.isfinite(norms).any() else float("nan")

    @property
    def cut_off(self) -> bool:
        """Whether the loss did not depend on the inputs: see `contracts.reach.cut_off`."""
        return cut_off(self.columns["gradient_norm"])

    @property
    def update_ratio(self) -> float:
        """Largest update ratio of any layer; infinite if a weight was not finite."""
        if (self.columns["flags"] & Flag.NONFINITE_WEIGHT).any():
            return float("inf")
        ratios = self.columns["update_ratio"]
        return float(np.nanmax(ratios)) if np.isfinite(ratios).any() else float("nan")
