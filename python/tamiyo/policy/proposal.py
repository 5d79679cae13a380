"""From "do this there" to a decision: identity, expiry, parameters, budget."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import NAMESPACE_URL, uuid5

from tamiyo.contracts import AdaptationDecision, AdaptationType
from tamiyo.graph import ModelGraphState
from tamiyo.policy.budget import DecisionBudget
from tamiyo.policy.config import PolicyConfig
from tamiyo.policy.prescription import prescribe
from tamiyo.policy.protocol import Check

__all__ = ["Proposal", "budget_checks", "make_budget", "to_decision"]

NAMESPACE = uuid5(NAMESPACE_URL, "tamiyo:decision")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a policy wants done, before the budget is asked."""

    adaptation: AdaptationType
    target: tuple[int, ...]
    """Layer ids; empty means the whole model."""
    reason: str
    parameters: Mapping[str, float | str] = field(default_factory=dict)
    """What the adaptation needs; where the policy leaves it open, `prescribe` fills it in."""
    confidence: float = 1.0
    urgency: float = 0.0
    risk: float | None = None
    safety: float | None = None
    uncertainty: float | None = None
    log_prob: float | None = None
    value: float | None = None


def make_budget(config: PolicyConfig) -> DecisionBudget:
    """The budget that a configuration asks for."""
    return DecisionBudget(
        config.max_adaptations_per_epoch, config.cooldown_steps, config.budget_window_steps
    )


def to_decision(
    proposal: Proposal, state: ModelGraphState, policy: str, version: str, ttl_steps: int
) -> AdaptationDecision:
    """The decision for a state that has a topology.

    Its id follows from its content, so that the same policy asked twice about the same moment,
    or two controllers during a failover, issue one decision and the host applies it once.
    """
    if state.topology is None:
        raise ValueError("a decision needs a topology: nothing else says which run it is for")
    parameters = dict(proposal.parameters)
    if not parameters:
        parameters = prescribe(proposal.adaptation, proposal.target, state)
    target = ",".join(map(str, proposal.target))
    identity = f"{state.topology.run}\n{state.step}\n{policy}\n{version}\n{target}\n"
    identity += f"{proposal.adaptation} {sorted(parameters.items())}"
    return AdaptationDecision(
        decision_id=str(uuid5(NAMESPACE, identity)),
        run=state.topology.run,
        term=0,
        adaptation=proposal.adaptation,
        target=proposal.target,
        parameters=parameters,
        issued_at_step=state.step,
        expires_at_step=state.step + ttl_steps,
        confidence=proposal.confidence,
        urgency=proposal.urgency,
        risk=proposal.risk,
        safety=proposal.safety,
        uncertainty=proposal.uncertainty,
        reason=proposal.reason,
        policy=policy,
        policy_version=version,
        log_prob=proposal.log_prob,
        value=proposal.value,
    )


def budget_checks(
    budget: DecisionBudget, decision: AdaptationDecision, epoch: int
) -> tuple[Check, ...]:
    """Whether a decision fits into what is left of the epoch's budget, and into the cooldown."""
    run, step, this = decision.run, decision.issued_at_step, decision.decision_id
    spent = budget.spent(run, step, epoch, apart_from=this)
    waited = budget.steps_since(run, step, apart_from=this)
    # No earlier decision (NaN) means nothing to wait for.
    cooled = not waited < budget.cooldown_steps
    return (
        Check("budget", spent < budget.max_per_epoch, spent, budget.max_per_epoch),
        Check("cooldown", cooled, waited, budget.cooldown_steps),
    )
