"""Temperatures that turn what a head says into frequencies (Guo et al. 2017, arXiv:1706.04599)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Calibrated", "Calibration", "calibrated", "tempered"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Divisors of logits, fitted on held-out episodes.

    Only decisions use them; the policy that is learned on is the uncalibrated one.

    Raises:
        ValueError: a temperature that is not positive and finite.
    """

    adapt_temperature: float = 1.0
    safety_temperature: float = 1.0

    def __post_init__(self) -> None:
        for temperature in (self.adapt_temperature, self.safety_temperature):
            if not 0 < temperature < math.inf:
                raise ValueError(f"a temperature must be positive, not {temperature}")


class Calibrated(NamedTuple):
    """What the thresholds of a decision act on, each [B] and in double precision."""

    confidence: Tensor
    """That an adaptation helps; less a share of the uncertainty where that was asked for."""
    safety: Tensor


def calibrated(outputs: Mapping[str, Any], calibration: Calibration) -> Calibrated:
    """Calibrated probabilities of B graphs.

    Args:
        outputs: Of `EnhancedTamiyoPolicyGNN.forward`. Where they have an uncertainty, their
            `epistemic_confidence` was calibrated by the network itself.
        calibration: The network's.
    """
    confidence = outputs.get("epistemic_confidence")
    if confidence is None:
        confidence = tempered(outputs["adaptation_prob"], calibration.adapt_temperature)
    return Calibrated(
        confidence.double(), tempered(outputs["safety_score"], calibration.safety_temperature)
    )


def tempered(probability: Tensor, temperature: float) -> Tensor:
    """Probabilities, in double precision, whose logits are those given over the temperature."""
    return (probability.double().logit() / temperature).sigmoid()
