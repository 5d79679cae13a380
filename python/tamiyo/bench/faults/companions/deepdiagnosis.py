"""DeepDiagnosis's symptoms, and the fixes that it names for them.

Wardat et al., *DeepDiagnosis: Automatically Diagnosing Faults and Recommending Actionable Fixes in
Deep Learning Programs*, ICSE 2022. It names a fix and leaves it to people; here it is applied.
"""

import numpy as np

from tamiyo.bench.faults.companions.published import (
    FASTER,
    NORMALIZE,
    REDRAW,
    SLOWER,
    activation,
    any_layer,
    blown_up,
    offer,
    rule,
    vanished,
    whole_run,
)
from tamiyo.policy.evidence import Evidence
from tamiyo.policy.symptoms import Symptom

__all__ = ["large_updates", "small_updates"]

SMALLEST, LARGEST = 1e-5, 1e-1
DEAD, SATURATED = 0.7, 0.5


def small_updates(evidence: Evidence) -> Symptom | None:
    """Half of the layers change by less than 1e-5 of their weights in a step."""
    ratios = evidence.trainable("update_ratio")
    if ratios.size and np.median(ratios) < SMALLEST:
        return whole_run(evidence, np.median(ratios), SMALLEST, "weights hardly change")
    return None


def large_updates(evidence: Evidence) -> Symptom | None:
    """Half of the layers change by more than a tenth of their weights in a step."""
    ratios = evidence.trainable("update_ratio")
    if ratios.size and np.median(ratios) > LARGEST:
        return whole_run(evidence, np.median(ratios), LARGEST, "weights change too much")
    return None


offer(
    "deepdiagnosis",
    (
        rule("exploding tensor", blown_up, SLOWER, NORMALIZE),
        rule("large updates", large_updates, SLOWER),
        rule(
            "dead nodes",
            any_layer("dead_neuron_ratio", DEAD),
            REDRAW,
            activation("leaky_relu"),
        ),
        rule("saturation", any_layer("saturation", SATURATED), REDRAW, activation("relu")),
        rule("vanishing gradient", vanished, activation("relu"), NORMALIZE),
        rule("small updates", small_updates, FASTER),
    ),
)
