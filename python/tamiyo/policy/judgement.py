"""From the network's outputs for one graph to a verdict: the checks a decision has to pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy.actions import Action, ActionDistribution
from tamiyo.policy.budget import DecisionBudget
from tamiyo.policy.calibration import Calibration, calibrated
from tamiyo.policy.config import PolicyConfig
from tamiyo.policy.proposal import Proposal, budget_checks, to_decision
from tamiyo.policy.protocol import Check, Verdict, explain, first_failure

__all__ = ["Judge", "Threshold", "thresholds"]


class Threshold(NamedTuple):
    """One condition on the network's outputs for B graphs."""

    name: str
    value: Tensor
    """[B]."""
    limit: float
    passed: Tensor
    """[B], bool."""


def thresholds(
    outputs: Mapping[str, Any], config: PolicyConfig, calibration: Calibration
) -> tuple[Threshold, ...]:
    """What the network has to be sure of to decide, for B graphs at once.

    A decision about a graph passes all of them; a value that is not finite passes none.

    Args:
        outputs: Of `EnhancedTamiyoPolicyGNN.forward`, with `uncertainty` where that is enabled.
        config: The limits.
        calibration: What their scale is.
    """
    confidence, safety = calibrated(outputs, calibration)
    least, floor = config.adaptation_confidence_threshold, 1.0 - config.safety_margin
    found = (
        Threshold("confidence", confidence, least, confidence >= least),
        Threshold("safety", safety, floor, safety >= floor),
    )
    if not config.enable_uncertainty:
        return found
    spread, limit = outputs["uncertainty"].double(), config.uncertainty_threshold
    return (*found, Threshold("uncertainty", spread, limit, spread <= limit))


@dataclass(frozen=True, slots=True)
class Judge:
    """Holds a network's proposal against the thresholds and the budget.

    Args:
        name: Of the policy, for the decision.
        version: Likewise.
        config: The thresholds.
        calibration: What the thresholds' scale is.
        budget: Read, never charged.
    """

    name: str
    version: str
    config: PolicyConfig
    calibration: Calibration
    budget: DecisionBudget

    def verdict(self, state: ModelGraphState, outputs: dict[str, Any]) -> Verdict:
        """What comes of the outputs (`EnhancedTamiyoPolicyGNN.forward`) for one graph."""
        distribution: ActionDistribution = outputs["distribution"]
        if not bool(distribution.can_adapt):
            return Verdict(None, "no legal action", (Check("legal", False, 0, 1),))
        if not _all_finite(distribution, outputs):
            unusable = (Check("finite", False, 0, 1),)
            return Verdict(None, "the network's outputs are not finite", unusable)
        conditions = thresholds(outputs, self.config, self.calibration)
        checks = tuple(
            Check(one.name, bool(one.passed), float(one.value), one.limit) for one in conditions
        )
        numbers = _numbers(outputs) | {check.name: check.value for check in checks}
        proposal = _proposal(state, distribution, numbers)
        numbers |= {"target": list(proposal.target), "adaptation": proposal.adaptation.value}
        failed = first_failure(checks)
        if failed is not None:
            return Verdict(None, explain(failed), checks, numbers)
        decision = to_decision(
            proposal, state, self.name, self.version, self.config.decision_ttl_steps
        )
        checks += budget_checks(self.budget, decision, state.epoch)
        failed = first_failure(checks)
        if failed is not None:
            return Verdict(None, explain(failed), checks, numbers)
        return Verdict(decision, decision.reason, checks, numbers)


def _numbers(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs for one graph as plain numbers."""
    numbers: dict[str, Any] = {
        name: float(value)
        for name, value in outputs.items()
        if isinstance(value, Tensor) and value.shape == (1,) and name != "layer_priority"
    }
    return numbers | {name: float(value) for name, value in outputs["temporal_analysis"].items()}


def _proposal(
    state: ModelGraphState, distribution: ActionDistribution, numbers: dict[str, Any]
) -> Proposal:
    row, kind = distribution.greedy_target()
    whole = int(row) == distribution.inputs.nodes
    local = torch.full_like(row, -1) if whole else row
    action = Action(torch.ones_like(row, dtype=torch.bool), local, kind)
    target = float(distribution.target_log_prob[row].exp())
    type_ = float(distribution.type_log_prob[row, kind].exp())
    numbers |= {"target_probability": target, "type_probability": type_}
    return Proposal(
        adaptation=ACTIONS[int(kind)],
        target=() if whole else (int(state.layer_ids[int(row)]),),
        reason=f"confidence {numbers['confidence']:.3f} that an adaptation helps, "
        f"{target:.3f} that it belongs there, {type_:.3f} that it is of this type",
        confidence=numbers["confidence"],
        urgency=numbers["urgency_score"],
        risk=numbers["risk_assessment"],
        safety=numbers["safety"],
        uncertainty=numbers.get("uncertainty"),
        log_prob=float(distribution.log_prob(action)),
        value=numbers["value_estimate"],
    )


def _all_finite(distribution: ActionDistribution, outputs: dict[str, Any]) -> bool:
    # Logits of illegal types are -inf on purpose, so the scores that they come from are looked at.
    tensors = [value for value in outputs.values() if isinstance(value, Tensor)]
    numbers = [value for value in tensors if value.dim() == 1]
    numbers += outputs["temporal_analysis"].values()
    numbers += [distribution.target_score, distribution.type_score.flatten()]
    return bool(torch.isfinite(torch.cat(numbers)).all())
