"""AutoTrainer's detectors and repairs, in the order in which it tries them.

Zhang et al., *AutoTrainer: An Automatic DNN Training Problem Detection and Repair System*, ICSE
2021. It counts zero entries of a gradient where this counts dead units, and repairs an oscillating
run by other optimisers and larger batches too, which nothing changes in place.
"""

from itertools import pairwise

from tamiyo.bench.faults.companions.published import (
    CLIP,
    FASTER,
    NORMALIZE,
    REDRAW,
    SLOWER,
    accuracies,
    activation,
    any_layer,
    blown_up,
    offer,
    rule,
    whole_run,
)
from tamiyo.policy.evidence import Evidence
from tamiyo.policy.symptoms import Symptom

__all__ = ["exploding", "oscillating", "slow", "vanishing"]

DYING = 0.7
RESTLESS, OFTEN = 0.03, 0.2
WARM_UP, LEAST_GAIN, LOW = 0.3, 0.01, 0.6


def vanishing(evidence: Evidence) -> Symptom | None:
    """The first layer's gradient below 1e-4 and a thousandth of the last one's."""
    norms = evidence.trainable("gradient_norm")
    if len(norms) > 1 and norms[0] < 1e-4 and norms[0] < 1e-3 * norms[-1]:
        return whole_run(evidence, norms[0], 1e-4, "vanishing gradient")
    return None


def exploding(evidence: Evidence) -> Symptom | None:
    """The first layer's gradient 70 times the last one's, a loss of 1,000, or no number."""
    found = blown_up(evidence)
    norms = evidence.trainable("gradient_norm")
    if found is None and len(norms) > 1 and norms[0] > 70 * norms[-1]:
        return whole_run(evidence, norms[0], 70.0, "exploding gradient")
    if found is None and evidence.loss >= 1e3:
        return whole_run(evidence, evidence.loss, 1e3, "exploding loss")
    return found


def oscillating(evidence: Evidence) -> Symptom | None:
    """The accuracy falls by .03 from one evaluation to the next in a fifth of them."""
    told = accuracies(evidence)
    falls = sum(one - other >= RESTLESS for one, other in pairwise(told))
    if len(told) > 2 and falls >= OFTEN * len(told):
        return whole_run(evidence, falls, OFTEN * len(told), "oscillating accuracy")
    return None


def slow(evidence: Evidence) -> Symptom | None:
    """No gain of .01 at an accuracy below .6 after three tenths of the run."""
    told, report = accuracies(evidence), evidence.report
    late = report is not None and report.progress is not None and report.progress >= WARM_UP
    gains = [other - one for one, other in pairwise(told)]
    if late and gains and max(gains) < LEAST_GAIN and told[-1] < LOW:
        return whole_run(evidence, max(gains), LEAST_GAIN, "slow convergence")
    return None


offer(
    "autotrainer",
    (
        rule("exploding", exploding, activation("selu"), activation("relu"), CLIP, NORMALIZE),
        rule("vanishing", vanishing, activation("selu"), REDRAW, NORMALIZE),
        rule(
            "dying",
            any_layer("dead_neuron_ratio", DYING),
            activation("selu"),
            NORMALIZE,
            REDRAW,
            activation("leaky_relu"),
        ),
        rule("oscillating", oscillating, SLOWER, REDRAW),
        rule("slow", slow, FASTER, REDRAW),
    ),
)
