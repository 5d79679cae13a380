"""Temperatures that turn what a head says into frequencies (Guo et al. 2017, arXiv:1706.04599)."""

import math
from dataclasses import dataclass

__all__ = ["Calibration", "tempered"]


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


def tempered(probability: float, temperature: float) -> float:
    """The probability whose logit is that of `probability` divided by the temperature."""
    if probability <= 0.0 or probability >= 1.0:
        return probability
    logit = math.log(probability) - math.log1p(-probability)
    return 1.0 / (1.0 + math.exp(-logit / temperature))
