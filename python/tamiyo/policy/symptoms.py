"""Published rules of diagnosis, one function each.

Sources: AutoTrainer (Zhang et al., ICSE 2021), DeepDiagnosis (Wardat et al., ICSE 2022),
TheDeepChecker (Ben Braiek and Khomh, 2022), Amazon SageMaker Debugger's built-in rules.
Where a published rule fires on healthy runs, the run must suffer as well (its loss stalls or
rises) before the rule does; its next report then confirms the symptom.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import Flag
from tamiyo.policy.evidence import Evidence

__all__ = [
    "Symptom",
    "SymptomFinder",
    "collapsed_loss",
    "dead_units",
    "exploding_gradients",
    "exploding_loss",
    "exploding_updates",
    "gradient_spike",
    "nonfinite",
    "oscillation",
    "saturation",
    "tiny_updates",
    "vanishing_gradients",
]


@dataclass(frozen=True, slots=True)
class Symptom:
    """What a rule found."""

    layer: int | None
    """The likely culprit; `None` is the model as a whole."""
    step: int
    """Optimiser step of the evidence."""
    value: float
    limit: float
    detail: str


SymptomFinder: TypeAlias = Callable[[Evidence], Symptom | None]

DEAD = 0.7
"""Share of dead units that makes a layer dead (DeepDiagnosis)."""

BROKEN = Flag.NONFINITE_ACTIVATION | Flag.NONFINITE_WEIGHT


def nonfinite(evidence: Evidence) -> Symptom | None:
    """Loss, weights or activations that are NaN or infinite.

    A gradient alone is not enough: loss scaling meets infinite gradients in healthy runs and
    skips their steps.
    """
    report, step = evidence.report, evidence.state.step
    if report is not None and report.loss is None and report.loss_nonfinite:
        return Symptom(None, report.step, report.loss_nonfinite, 0, "the loss is not finite")
    flags = np.where(evidence.fresh, evidence.state.layers["nonfinite_last"], 0)
    broken = (flags & int(BROKEN)) != 0
    if not broken.any():
        return None
    name = evidence.topology.nodes[evidence.most_upstream(broken)].name
    return Symptom(None, step, int(broken.sum()), 0, f"weights or activations of {name} not finite")


def exploding_loss(evidence: Evidence) -> Symptom | None:
    """The loss is three times what it was when the run began.

    AutoTrainer's bound of 1e3 presumes a kind of loss; the run's own history does not.
    """
    loss, limit = evidence.loss, 3 * evidence.history.first
    if loss > limit:
        detail = f"loss {loss:.3g}, and the run began at {evidence.history.first:.3g}"
        return Symptom(None, _report_step(evidence), loss, limit, detail)
    return None


def collapsed_loss(evidence: Evidence) -> Symptom | None:
    """The loss has left the level that this run had reached, and gone back towards its start.

    What was learned is lost, though nothing explodes. ZClip's idea, a z-score against the run's
    own history, with robust statistics and on the loss.
    """
    loss, level, history = evidence.loss, evidence.loss_level, evidence.history
    if loss > 3 * level and history.deviation() > 6 and loss > 0.25 * history.first:
        detail = f"loss {loss:.3g}, after a level of {level:.3g} had been reached"
        return Symptom(None, _report_step(evidence), loss, 3 * level, detail)
    return None


def exploding_updates(evidence: Evidence) -> Symptom | None:
    """Typical update ratio above .1 (TheDeepChecker, DeepDiagnosis) while the run suffers.

    The loss stalls or rises, or steps that large have already killed units. Above 1, each step
    replaces the weights, and nothing else needs to be seen.
    """
    ratio = _median(evidence.trainable("update_ratio"))
    killed = np.where(evidence.hidden, evidence.last("dead_neuron_ratio"), np.nan) >= DEAD
    loss_suffers = evidence.history.stalled or evidence.loss > 2 * evidence.loss_level
    limit = 0.1 if loss_suffers or killed.any() else 1.0
    if ratio > limit:
        detail = f"a step changes the weights by {ratio:.2g} of their norm"
        # A new report of a suffering loss confirms the symptom as well as a new reading does.
        step = evidence.state.step if loss_suffers else evidence.layers_step
        return Symptom(None, step, ratio, limit, detail)
    return None


def gradient_spike(evidence: Evidence) -> Symptom | None:
    """Gradient norms at ten times their own mean, with the loss at twice its level.

    After ZClip and SPAM, which judge a norm against its own history after a warm-up of 25.
    """
    layers = evidence.state.layers
    mean = np.where(layers["count"] >= 25, layers["gradient_norm_mean"], np.nan)
    norms = evidence.last("gradient_norm")
    usable = mean > 0
    ratio = _median(norms[usable] / mean[usable])
    if ratio > 10 and evidence.loss > 2 * evidence.loss_level:
        detail = f"gradient norms {ratio:.3g} times their mean"
        return Symptom(None, evidence.layers_step, ratio, 10, detail)
    return None


def exploding_gradients(evidence: Evidence) -> Symptom | None:
    """Gradient of the first layer over that of the last above 70 (AutoTrainer)."""
    gradients = evidence.trainable("gradient_norm")
    if len(gradients) < 2 or not gradients[-1] > 0:
        return None
    ratio = float(gradients[0] / gradients[-1])
    if ratio > 70:
        detail = f"first layer's gradient is {ratio:.3g} times the last's"
        return Symptom(None, evidence.layers_step, ratio, 70, detail)
    return None


def dead_units(evidence: Evidence) -> Symptom | None:
    """At least .7 of a hidden layer's units dead (DeepDiagnosis; SageMaker says .5).

    The culprit is the most upstream one: it starves what follows. A layer that is dead altogether
    also stops every gradient before it, so it comes before layers that are merely ill, and needs no
    other sign. Wide layers do well with three quarters of their units dead, so for less than all
    of them the run must suffer.
    """
    dead = np.where(evidence.hidden, evidence.last("dead_neuron_ratio"), np.nan)
    for limit in (0.99, DEAD) if evidence.suffers else (0.99,):
        ill = dead >= limit
        if ill.any():
            layer = evidence.most_upstream(ill)
            share = float(dead[layer])
            detail = f"{share:.0%} of the units of {evidence.topology.nodes[layer].name} are dead"
            stalled = evidence.history.stalled
            step = evidence.state.step if stalled else _layer_step(evidence, layer)
            return Symptom(layer, step, share, DEAD, detail)
    return None


def vanishing_gradients(evidence: Evidence) -> Symptom | None:
    """First gradient below 1e-4 and below 1e-3 of the last (AutoTrainer), while the loss stalls."""
    gradients = evidence.trainable("gradient_norm")
    if len(gradients) < 2 or not gradients[-1] > 0 or not evidence.history.stalled:
        return None
    ratio = float(gradients[0] / gradients[-1])
    if ratio < 1e-3 and gradients[0] < 1e-4:
        detail = f"first layer's gradient is {ratio:.2g} of the last's"
        return Symptom(None, evidence.state.step, ratio, 1e-3, detail)
    return None


def saturation(evidence: Evidence) -> Symptom | None:
    """More than half of a hidden layer saturated (SageMaker, DeepDiagnosis), the loss stalled."""
    saturated = np.where(evidence.hidden, evidence.last("saturation"), np.nan)
    ill = saturated > 0.5
    if not ill.any() or not evidence.history.stalled:
        return None
    layer = evidence.most_upstream(ill)
    name = evidence.topology.nodes[layer].name
    detail = f"{saturated[layer]:.0%} of the units of {name} are saturated"
    return Symptom(layer, evidence.state.step, float(saturated[layer]), 0.5, detail)


def oscillation(evidence: Evidence) -> Symptom | None:
    """The loss changes direction in more than half of the recent reports (TheDeepChecker).

    Noise does that too, so it must move by half its size each time and get nowhere.
    """
    losses = np.array(evidence.history.recent)
    if evidence.report is None or not evidence.history.stalled:
        return None
    moves = np.diff(np.log(np.maximum(losses, np.finfo(float).tiny)))
    switches = float(np.mean(np.sign(moves[1:]) != np.sign(moves[:-1])))
    if switches > 0.5 and np.median(np.abs(moves)) > np.log(1.5):
        detail = f"the loss changes direction in {switches:.0%} of the reports"
        return Symptom(None, evidence.report.step, switches, 0.5, detail)
    return None


def tiny_updates(evidence: Evidence) -> Symptom | None:
    """Typical update ratio below 1e-5 (DeepDiagnosis) in a run that never learned anything."""
    ratio = _median(evidence.trainable("update_ratio"))
    if ratio < 1e-5 and evidence.history.never_learned:
        detail = f"a step changes the weights by {ratio:.2g} of their norm, and nothing is learned"
        return Symptom(None, evidence.state.step, ratio, 1e-5, detail)
    return None


def _median(values: npt.NDArray[np.floating]) -> float:
    measured = values[~np.isnan(values)]
    return float(np.median(measured)) if len(measured) else float("nan")


def _layer_step(evidence: Evidence, layer: int) -> int:
    return int(evidence.state.layers["step"][layer])


def _report_step(evidence: Evidence) -> int:
    return evidence.state.step if evidence.report is None else evidence.report.step
