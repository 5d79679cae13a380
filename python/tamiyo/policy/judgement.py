"""From the network's outputs for one graph to a verdict: the checks a decision has to pass."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy.actions import Action, ActionDistribution
from tamiyo.policy.budget import DecisionBudget
from tamiyo.policy.calibration import Calibration, tempered
from tamiyo.policy.config import PolicyConfig
from tamiyo.policy.proposal import Proposal, budget_checks, to_decision
from tamiyo.policy.protocol import Check, Verdict, explain, first_failure

__all__ = ["Judge"]


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
            return Verdict(None, "the network's outputs are not finite")
        numbers = self._numbers(outputs)
        proposal = _proposal(state, distribution, numbers)
        numbers |= {"target": list(proposal.target), "adaptation": proposal.adaptation.value}
        checks = self._checks(numbers)
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

    def _numbers(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """The outputs as plain numbers, with the calibrated `confidence` and `safety`."""
        numbers: dict[str, Any] = {
            name: float(value)
            for name, value in outputs.items()
            if isinstance(value, Tensor) and value.shape == (1,) and name != "layer_priority"
        }
        numbers |= {name: float(value) for name, value in outputs["temporal_analysis"].items()}
        calibrated = tempered(numbers["adaptation_prob"], self.calibration.adapt_temperature)
        numbers["confidence"] = numbers.get("epistemic_confidence", calibrated)
        numbers["safety"] = tempered(numbers["safety_score"], self.calibration.safety_temperature)
        return numbers

    def _checks(self, numbers: dict[str, Any]) -> tuple[Check, ...]:
        config = self.config
        confidence, safety = numbers["confidence"], numbers["safety"]
        threshold, floor = config.adaptation_confidence_threshold, 1.0 - config.safety_margin
        checks: tuple[Check, ...] = (
            Check("confidence", confidence >= threshold, confidence, threshold),
            Check("safety", safety >= floor, safety, floor),
        )
        if config.enable_uncertainty:
            spread, limit = numbers["uncertainty"], config.uncertainty_threshold
            checks += (Check("uncertainty", spread <= limit, spread, limit),)
        return checks


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
