"""The built-in rules of Amazon SageMaker Debugger at their default thresholds.

Amazon SageMaker Developer Guide, *List of Debugger built-in rules*. They stop a training or raise
an alarm; the repairs are those that AutoTrainer has for the same symptoms.
"""

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

__all__ = ["loss_not_decreasing", "odd_updates"]

SMALLEST, LARGEST = 1e-8, 10.0
PATIENCE = 10
"""Reports of the loss."""
HALF = 0.5


def odd_updates(evidence: Evidence) -> Symptom | None:
    """`WeightUpdateRatio`: a layer that changes by less than 1e-8 or more than 10 times itself."""
    ratios = evidence.trainable("update_ratio")
    odd = (ratios < SMALLEST) | (ratios > LARGEST)
    if odd.any():
        return whole_run(evidence, float(ratios[odd][0]), LARGEST, "odd weight updates")
    return None


def loss_not_decreasing(evidence: Evidence) -> Symptom | None:
    """`LossNotDecreasing`: the loss is not below that of ten reports before."""
    losses = evidence.history.recent
    if len(losses) > PATIENCE and losses[-1] >= losses[-1 - PATIENCE]:
        return whole_run(evidence, losses[-1], losses[-1 - PATIENCE], "the loss does not fall")
    return None


offer(
    "sagemaker",
    (
        rule("exploding tensor", blown_up, activation("selu"), NORMALIZE),
        rule("vanishing gradient", vanished, activation("selu"), REDRAW, NORMALIZE),
        rule("dead relu", any_layer("dead_neuron_ratio", HALF), activation("selu"), NORMALIZE),
        rule("saturated activation", any_layer("saturation", HALF), activation("relu")),
        rule("update ratio", odd_updates, SLOWER),
        rule("loss not decreasing", loss_not_decreasing, FASTER, SLOWER),
    ),
)
