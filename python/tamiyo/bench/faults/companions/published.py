"""What published rule sets have in common: symptoms at their authors' bounds, and cures in place.

Tamiyo's own rules ask besides whether the run suffers; these do not. What they look at is what
Tamiyo measures every ten steps, which stands for their looks at every epoch. Their repairs begin
the training anew; here the same changes are made to the network that is in training.
"""

from collections.abc import Callable, Mapping

import numpy as np

from tamiyo.bench.faults.companion import POLICIES, Policy
from tamiyo.bench.faults.companions.controlled import Controlled
from tamiyo.contracts import AdaptationType
from tamiyo.policy.evidence import Evidence
from tamiyo.policy.rules import Cure, Rule, RulesPolicy, hidden_layers, whole_model
from tamiyo.policy.symptoms import Symptom, nonfinite

__all__ = [
    "CLIP",
    "FASTER",
    "NORMALIZE",
    "REDRAW",
    "SLOWER",
    "accuracies",
    "activation",
    "any_layer",
    "blown_up",
    "offer",
    "rule",
    "vanished",
    "whole_run",
]

VANISHED = 1e-7
CLIP = Cure(AdaptationType.CLIP_GRADIENTS, whole_model)
NORMALIZE = Cure(AdaptationType.INSERT_NORMALIZATION, hidden_layers)
REDRAW = Cure(AdaptationType.REINITIALIZE, hidden_layers, {"scope": "all"})
SLOWER = Cure(AdaptationType.SCALE_LEARNING_RATE, whole_model, {"factor": 0.1})
FASTER = Cure(AdaptationType.SCALE_LEARNING_RATE, whole_model, {"factor": 10.0})


def activation(name: str) -> Cure:
    """Another activation in all hidden layers."""
    return Cure(AdaptationType.CHANGE_ACTIVATION, hidden_layers, {"to": name})


def offer(name: str, rules: tuple[Rule, ...]) -> None:
    """Register a policy that decides by these rules alone, each symptom at first sight."""
    POLICIES.add(Policy(name, lambda: Controlled(RulesPolicy(rules=rules, name=name))))


def rule(name: str, find: Callable[[Evidence], Symptom | None], *cures: Cure) -> Rule:
    """A rule that acts at the first sight of its symptom."""
    return Rule(name, find, cures, patience=1)


def whole_run(evidence: Evidence, value: float, limit: float, detail: str) -> Symptom:
    """A symptom of the run as a whole."""
    return Symptom(None, evidence.state.step, float(value), limit, detail)


def any_layer(measurement: str, limit: float) -> Callable[[Evidence], Symptom | None]:
    """Finds a hidden layer of which so large a share of the units has something."""

    def find(evidence: Evidence) -> Symptom | None:
        shares = np.where(evidence.hidden, evidence.last(measurement), np.nan)
        if not (shares >= limit).any():
            return None
        share = float(np.nanmax(shares))
        return whole_run(evidence, share, limit, f"{measurement} {share:.2f} in a layer")

    return find


def blown_up(evidence: Evidence) -> Symptom | None:
    """Loss, weights, activations or gradients that are not finite."""
    found = nonfinite(evidence)
    if found is None and np.isinf(evidence.trainable("gradient_norm")).any():
        return whole_run(evidence, np.inf, 0.0, "a gradient is not finite")
    return found


def vanished(evidence: Evidence) -> Symptom | None:
    """A layer's gradient is below 1e-7: its root mean square, for the mean of absolute values."""
    sizes = np.array([max(node.parameters, 1) for node in evidence.topology.nodes])
    least = float(np.nanmin([*(evidence.last("gradient_norm") / np.sqrt(sizes)), np.inf]))
    return whole_run(evidence, least, VANISHED, "vanishing gradient") if least < VANISHED else None


def accuracies(evidence: Evidence) -> list[float]:
    """Held-out accuracies that were reported, in order."""
    told: Mapping[int, float] = {
        report.step: report.validation_accuracy
        for report in evidence.state.metrics
        if report.validation_accuracy is not None
    }
    return list(told.values())
