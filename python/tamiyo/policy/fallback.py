"""The learned policy where it knows what it does, and the rules where it does not."""

from dataclasses import replace
from pathlib import Path
from typing import Self

from tamiyo.contracts import AdaptationDecision, AdaptationType
from tamiyo.contracts.reach import cut_off
from tamiyo.graph import ModelGraphState
from tamiyo.policy.checkpoint import CheckpointError, shipped
from tamiyo.policy.config import PolicyConfig
from tamiyo.policy.familiarity import Familiarity
from tamiyo.policy.gnn import EnhancedTamiyoPolicyGNN
from tamiyo.policy.proposal import make_budget
from tamiyo.policy.protocol import DecisionPolicy, Verdict, explain, first_failure
from tamiyo.policy.rules import RulesPolicy
from tamiyo.policy.standing import StandingProposals

__all__ = ["FallbackPolicy", "learned_policy"]

SHAPE = ("hidden_dim", "num_gnn_layers", "num_attention_heads")
DOUBTS = ("finite", "uncertainty")
"""Checks of the network's own verdict that say that it cannot be relied on."""


class FallbackPolicy:
    """Asks the learned policy, and lets the rules decide where it cannot be relied on.

    That is where it could not be loaded or was never trained, where its uncertainty is above
    `uncertainty_threshold`, where the state is not like those that it was trained on
    (`tamiyo.policy.familiarity`), and where it would do nothing although the rules see a symptom
    that persists and has a cure, unless it is as good as sure (`quiet_confidence`). What it
    proposes is done once it has proposed the same for `confirmation_steps`
    (`tamiyo.policy.standing`).

    The rules see every state, so that they know the run when they are needed. Both share one
    budget, and both count a decision of the other as one after which to wait.

    Args:
        learned: The network, which is given the common thresholds and the common budget; `None`
            where there is none.
        policy_config: Thresholds and budget of both; by default the network's.
        unavailable: Why there is no network.
    """

    name = "fallback"

    def __init__(
        self,
        learned: EnhancedTamiyoPolicyGNN | None,
        policy_config: PolicyConfig | None = None,
        *,
        unavailable: str = "no learned policy",
    ) -> None:
        if learned is not None:
            policy_config = _in_shape_of(learned, policy_config)
            learned.config = policy_config
        self.rules = RulesPolicy(policy_config)
        self.learned = learned
        self.config = self.rules.config
        self.budget = make_budget(self.config)
        self.rules.budget = self.budget
        if learned is not None:
            learned.budget = self.budget
        self._unavailable = unavailable
        self._standing = StandingProposals(self.config.confirmation_steps)
        self._familiarity = None if learned is None else _familiarity(learned)

    @classmethod
    def from_pretrained(cls, directory: Path, policy_config: PolicyConfig | None = None) -> Self:
        """With a network from a checkpoint; where it cannot be used, the rules alone decide.

        Args:
            directory: The checkpoint.
            policy_config: Thresholds and budget; the shape is that of the checkpoint.
        """
        try:
            learned = EnhancedTamiyoPolicyGNN.from_pretrained(directory)
        except CheckpointError as error:
            return cls(None, policy_config, unavailable=str(error))
        return cls(learned, policy_config)

    @property
    def version(self) -> str:
        """Versions of both policies."""
        learned = "none" if self.learned is None else self.learned.version
        return f"gnn {learned}, rules {self.rules.version}"

    def decide(self, state: ModelGraphState) -> Verdict:
        """The verdict of one policy, and why the other one did not decide."""
        diagnosis = self.rules.diagnose(state)
        advice, cure = self._ask(state), diagnosis.verdict.decision
        if isinstance(advice, Verdict) and self._gives_way(advice, cure, state):
            advice = f"it saw nothing to do here: {advice.reason}"
        if isinstance(advice, Verdict):
            followed = None
            said = diagnosis.verdict.reason
            because = f"the learned policy could be relied on; they said: {said}"
            verdict = replace(advice, passed_over={self.rules.name: because})
        else:
            followed = diagnosis
            verdict = replace(diagnosis.verdict, passed_over={EnhancedTamiyoPolicyGNN.name: advice})
        if verdict.decision is not None:
            self.budget.charge(verdict.decision, state.epoch)
            self.rules.note_decision(state, followed)
        # Symptoms and proposals have to be confirmed soon, whoever is to decide on them.
        return replace(verdict, pressing=verdict.pressing or diagnosis.verdict.pressing)

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """The decision of `decide`, or `None`."""
        return self.decide(state).decision

    def _gives_way(
        self, advice: Verdict, cure: AdaptationDecision | None, state: ModelGraphState
    ) -> bool:
        """Whether the rules' cure, if any, is preferred to the learned policy's verdict."""
        if cure is None or advice.decision is not None:
            return False
        # Where a run is broken or cut off from its inputs, that is no matter of opinion.
        if cure.adaptation is AdaptationType.RESTORE or cut_off(state.layers["gradient_norm_last"]):
            return True
        confidence = [check.value for check in advice.checks if check.name == "confidence"]
        return not confidence or confidence[0] >= self.config.quiet_confidence

    def _ask(self, state: ModelGraphState) -> Verdict | str:
        """The learned policy's verdict, or why it cannot be followed."""
        if self.learned is None or self._familiarity is None:
            return self._unavailable
        if not self.learned.is_trained:
            return "untrained network"
        try:
            advice = self.learned.consider(state)
        except ValueError as error:
            return str(error)
        target = advice.outputs.get("target", ())
        doubts = [check for check in advice.checks if check.name in DOUBTS]
        failed = first_failure((*doubts, *self._familiarity.checks(state, target)))
        if failed is not None:
            self._standing.lapse(state)
            return explain(failed)
        return self._standing.confirmed(state, advice)


def learned_policy(policy_config: PolicyConfig | None = None) -> DecisionPolicy:
    """Who decides where nobody is named: the shipped policy with the rules behind it.

    Without a shipped policy the rules decide alone.

    Args:
        policy_config: Thresholds and budget.
    """
    directory = shipped()
    if directory is None:
        return RulesPolicy(policy_config)
    return FallbackPolicy.from_pretrained(directory, policy_config)


def _in_shape_of(
    learned: EnhancedTamiyoPolicyGNN, policy_config: PolicyConfig | None
) -> PolicyConfig:
    if policy_config is None:
        return learned.config
    return policy_config.model_copy(update={name: getattr(learned.config, name) for name in SHAPE})


def _familiarity(learned: EnhancedTamiyoPolicyGNN) -> Familiarity:
    notes = learned.training_notes
    types = frozenset((*notes.get("layer_types", ()), *notes.get("kin", ())))
    return Familiarity(learned.trunk.node_norm, learned.trunk.global_norm, types)
