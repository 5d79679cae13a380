"""What every policy offers, and what it says besides its decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tamiyo.contracts import AdaptationDecision
from tamiyo.graph import ModelGraphState
from tamiyo.policy.budget import DecisionBudget

__all__ = ["Check", "DecisionPolicy", "Verdict", "explain", "first_failure"]


class Check(NamedTuple):
    """One condition of a decision, for the journal."""

    name: str
    passed: bool
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision or none, and why."""

    decision: AdaptationDecision | None
    reason: str
    checks: tuple[Check, ...] = ()
    """Every condition that was looked at, passed or not."""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    """The raw numbers behind it, as plain Python values."""
    pressing: bool = False
    """Whether something was seen that the next state may confirm."""
    passed_over: Mapping[str, str] = field(default_factory=dict)
    """By name the policies that were asked as well, and why they did not decide."""

    @property
    def quiet(self) -> bool:
        """Whether nothing was decided, and nothing seen that calls for a decision soon."""
        return self.decision is None and not self.pressing


@runtime_checkable
class DecisionPolicy(Protocol):
    """Decides when, where and how to adapt."""

    budget: DecisionBudget

    @property
    def name(self) -> str:
        """Name of the kind of policy."""

    @property
    def version(self) -> str:
        """What identifies this very policy: a version of its rules, a hash of its weights."""

    def decide(self, state: ModelGraphState) -> Verdict:
        """A decision or none, with the reason. A decision is charged to the budget.

        The decision's `term` is 0; whoever publishes it stamps the controller's own.
        """

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """The decision of `decide` alone."""


def first_failure(checks: tuple[Check, ...]) -> Check | None:
    """The first condition that does not hold."""
    return next((check for check in checks if not check.passed), None)


def explain(check: Check) -> str:
    """A failed condition in words."""
    return f"{check.name} {check.value:.3g} against a limit of {check.limit:.3g}"
