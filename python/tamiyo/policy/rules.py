"""A policy made of published rules: the baseline, and what runs before a network is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

import numpy as np

from tamiyo.contracts import AdaptationDecision, AdaptationType, ModelTopology
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy import symptoms
from tamiyo.policy.config import PolicyConfig
from tamiyo.policy.evidence import Evidence, LossHistory
from tamiyo.policy.proposal import Proposal, budget_checks, make_budget, to_decision
from tamiyo.policy.protocol import Check, Verdict, explain, first_failure
from tamiyo.policy.symptoms import Symptom, SymptomFinder

__all__ = [
    "RULES",
    "Cure",
    "Diagnosis",
    "Rule",
    "RulesPolicy",
    "hidden_layers",
    "whole_model",
]

Place: TypeAlias = tuple[int, ...] | None
"""Layers to adapt; `None` stands for the whole model, an empty tuple for nowhere."""
FORGET_STEPS = 1000
"""Optimiser steps after which a symptom that comes back counts as a new one."""


@dataclass(frozen=True, slots=True)
class Cure:
    """One adaptation, and where it belongs for a symptom."""

    adaptation: AdaptationType
    place: Callable[[Evidence, Symptom], Place]
    parameters: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """A symptom, and what to try against it, in order, each time it persists."""

    name: str
    find: SymptomFinder
    cures: tuple[Cure, ...]
    patience: int = 2
    """Distinct optimiser steps over which the symptom must be seen."""


def whole_model(_evidence: Evidence, _symptom: Symptom) -> Place:
    """The run as a whole."""
    return None


def _owner(evidence: Evidence, symptom: Symptom) -> Place:
    """The culprit, or the layer before it whose weights feed it."""
    return _near(evidence, symptom, AdaptationType.REINITIALIZE, upstream=True)


def _activation(evidence: Evidence, symptom: Symptom) -> Place:
    """The culprit, or the activation that follows it."""
    return _near(evidence, symptom, AdaptationType.CHANGE_ACTIVATION, upstream=False)


def _near(evidence: Evidence, symptom: Symptom, action: AdaptationType, *, upstream: bool) -> Place:
    if symptom.layer is None:
        return ()
    found = evidence.nearest(symptom.layer, action, upstream=upstream)
    return () if found is None else (found,)


def _squashing_activations(evidence: Evidence, _symptom: Symptom) -> Place:
    """Every hidden activation whose slope vanishes on both sides."""
    kinds = {"Sigmoid", "Tanh", "Hardsigmoid", "Hardtanh", "Softsign"}
    return tuple(
        node.layer_id
        for node in evidence.topology.nodes
        if node.type in kinds and evidence.hidden[node.layer_id]
    )


def hidden_layers(evidence: Evidence, _symptom: Symptom) -> Place:
    """Every hidden layer; those that cannot take the cure are left out later."""
    return tuple(np.flatnonzero(evidence.hidden).tolist())


SLOW_DOWN = Cure(AdaptationType.SCALE_LEARNING_RATE, whole_model, {"factor": 0.1})
START_OVER = (
    Cure(AdaptationType.RESTORE, whole_model, {"learning_rate_factor": 0.5}),
    Cure(AdaptationType.RESTORE, whole_model, {"learning_rate_factor": 0.1}),
    SLOW_DOWN,
)
CLIP = Cure(AdaptationType.CLIP_GRADIENTS, whole_model)
LEAK = Cure(AdaptationType.CHANGE_ACTIVATION, _activation, {"to": "leaky_relu"})
LEAK_EVERYWHERE = Cure(
    AdaptationType.CHANGE_ACTIVATION, _squashing_activations, {"to": "leaky_relu"}
)
RECYCLE = Cure(AdaptationType.REINITIALIZE, _owner, {"scope": "dormant"})
NORMALIZE = Cure(AdaptationType.INSERT_NORMALIZATION, hidden_layers)
SPEED_UP = Cure(AdaptationType.SCALE_LEARNING_RATE, whole_model, {"factor": 10.0})

RULES = (
    Rule("nonfinite", symptoms.nonfinite, START_OVER, patience=1),
    Rule("exploding loss", symptoms.exploding_loss, START_OVER),
    Rule("exploding updates", symptoms.exploding_updates, START_OVER),
    Rule("gradient spike", symptoms.gradient_spike, (CLIP, SLOW_DOWN)),
    Rule("exploding gradients", symptoms.exploding_gradients, (CLIP, NORMALIZE, SLOW_DOWN)),
    Rule("dead units", symptoms.dead_units, (RECYCLE, LEAK)),
    # After dead units, because one layer that died explains a collapse, and has a local cure.
    Rule("collapsed loss", symptoms.collapsed_loss, START_OVER),
    Rule("vanishing gradients", symptoms.vanishing_gradients, (LEAK_EVERYWHERE, NORMALIZE)),
    Rule("saturation", symptoms.saturation, (LEAK, NORMALIZE)),
    Rule("oscillation", symptoms.oscillation, (SLOW_DOWN,)),
    Rule("tiny updates", symptoms.tiny_updates, (SPEED_UP,)),
)
"""In order of urgency; of those that find their symptom, the first one that can act does."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the rules would do about a state, and what they remember if it is done."""

    verdict: Verdict
    culprit: tuple[str, int | None] | None = None
    """The rule and the layer that a decision is about."""
    next_cure: int = 0
    """Index into the rule's cures of the one to try after this."""
    seen_step: int = -1
    """Optimiser step of the evidence."""


@dataclass
class _RunMemory:
    history: LossHistory = field(default_factory=LossHistory)
    decided_step: int | None = None
    """When this run was last decided about, by the rules or by somebody else."""
    diagnosis: Diagnosis | None = None
    """The rules' own decision at that step."""
    sightings: dict[str, tuple[int | None, int, int]] = field(default_factory=dict)
    """By rule: the culprit, on how many distinct steps it was seen in a row, and the last one."""
    tried: dict[tuple[str, int | None], tuple[int, int]] = field(default_factory=dict)
    """By rule and culprit: the next cure in the row, and the step of the last one."""

    def sighted(self, rule: Rule, symptom: Symptom | None) -> int:
        """On how many distinct steps in a row the rule has seen this symptom."""
        if symptom is None:
            self.sightings.pop(rule.name, None)
            return 0
        layer, count, step = self.sightings.get(rule.name, (symptom.layer, 0, -1))
        if layer != symptom.layer:
            count, step = 0, -1
        count += symptom.step > step
        self.sightings[rule.name] = symptom.layer, count, max(step, symptom.step)
        return count

    def next_cure(self, rule: Rule, symptom: Symptom) -> int:
        """Index into the rule's cures of the first one that is still to be tried."""
        index, step = self.tried.get((rule.name, symptom.layer), (0, symptom.step))
        return index if symptom.step - step < FORGET_STEPS else 0


class RulesPolicy:
    """Acts on raw readings by `RULES`; deterministic given the sequence of states.

    A symptom must persist over two distinct optimiser steps, except for what is not finite. Each
    time it comes back the next cure in the rule's row is tried. Only legal actions are taken, and
    never on readings from before the last decision could have taken effect.

    Args:
        policy_config: Only its budget and its times count here.
        rules: In order of urgency.
        name: Of the policy.
    """

    version = "1"

    def __init__(
        self,
        policy_config: PolicyConfig | None = None,
        *,
        rules: Sequence[Rule] = RULES,
        name: str = "rules",
    ) -> None:
        self.name = name
        self._rules = rules
        self.config = PolicyConfig() if policy_config is None else policy_config
        self.budget = make_budget(self.config)
        self._memory: dict[str, _RunMemory] = {}

    def decide(self, state: ModelGraphState) -> Verdict:
        """A decision or none, with the reason; asked again at the same step it answers the same."""
        diagnosis = self.diagnose(state)
        if diagnosis.verdict.decision is not None:
            self.budget.charge(diagnosis.verdict.decision, state.epoch)
            self.note_decision(state, diagnosis)
        return diagnosis.verdict

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """The decision of `decide`, or `None`."""
        return self.decide(state).decision

    def diagnose(self, state: ModelGraphState) -> Diagnosis:
        """What the rules would do; they remember what was seen, but nothing counts as done.

        Show them every state in order, also where somebody else decides: symptoms have to persist.
        """
        if state.topology is None:
            nothing = "no topology: it is not known what may be done to which layer"
            return Diagnosis(Verdict(None, nothing))
        memory = self._recall(state.topology.run, state.step)
        if memory.diagnosis is not None and memory.decided_step == state.step:
            return memory.diagnosis
        memory.history.take(state.metrics)
        return self._diagnose(state, self._evidence(state, state.topology, memory), memory)

    def note_decision(self, state: ModelGraphState, diagnosis: Diagnosis | None = None) -> None:
        """Remember that the run is about to be changed, so that older readings count no more.

        Args:
            state: What was decided on; it has a topology.
            diagnosis: The rules' own one, if that was followed: its cure then counts as tried.
        """
        if state.topology is None:
            raise ValueError("a decision needs a topology: nothing else says which run it is for")
        memory = self._recall(state.topology.run, state.step)
        memory.decided_step, memory.diagnosis = state.step, diagnosis
        if diagnosis is not None and diagnosis.culprit is not None:
            memory.tried[diagnosis.culprit] = diagnosis.next_cure, diagnosis.seen_step

    def _recall(self, run: str, step: int) -> _RunMemory:
        memory = self._memory.setdefault(run, _RunMemory())
        if memory.decided_step is not None and step < memory.decided_step:
            # The run has gone back: what was seen and tried belongs to another course of it.
            memory = self._memory[run] = _RunMemory()
        return memory

    def _evidence(
        self, state: ModelGraphState, topology: ModelTopology, memory: _RunMemory
    ) -> Evidence:
        decided = memory.decided_step
        after = -1 if decided is None else decided + self.config.decision_ttl_steps
        return Evidence(state, topology, memory.history, after)

    def _diagnose(
        self, state: ModelGraphState, evidence: Evidence, memory: _RunMemory
    ) -> Diagnosis:
        findings = [(rule, rule.find(evidence)) for rule in self._rules]
        counts = {rule.name: memory.sighted(rule, symptom) for rule, symptom in findings}
        seen = [(rule, symptom) for rule, symptom in findings if symptom is not None]
        outputs = {rule.name: asdict(symptom) for rule, symptom in seen}
        checks = tuple(_persistence(rule, counts[rule.name]) for rule, _ in seen)
        if not seen:
            return Diagnosis(Verdict(None, "no rule found a symptom"))
        for rule, symptom in seen:
            if counts[rule.name] < rule.patience:
                # What is less urgent may be its consequence, and waits until it is confirmed.
                waiting = f"{rule.name} seen, not yet persistent"
                return Diagnosis(Verdict(None, waiting, checks, outputs, pressing=True))
            proposal, following = _propose(state, evidence, rule, symptom, memory)
            if proposal is None:
                continue
            decision = to_decision(
                proposal, state, self.name, self.version, self.config.decision_ttl_steps
            )
            checks += budget_checks(self.budget, decision, state.epoch)
            failed = first_failure(checks[-2:])
            if failed is not None:
                reason = f"{rule.name}: {explain(failed)}"
                return Diagnosis(Verdict(None, reason, checks, outputs, pressing=True))
            verdict = Verdict(decision, decision.reason, checks, outputs, pressing=True)
            return Diagnosis(verdict, (rule.name, symptom.layer), following, symptom.step)
        exhausted = "nothing left to try: " + ", ".join(rule.name for rule, _ in seen)
        return Diagnosis(Verdict(None, exhausted, checks, outputs, pressing=True))


def _persistence(rule: Rule, count: int) -> Check:
    return Check(f"{rule.name} persists", count >= rule.patience, count, rule.patience)


def _propose(
    state: ModelGraphState, evidence: Evidence, rule: Rule, symptom: Symptom, memory: _RunMemory
) -> tuple[Proposal | None, int]:
    """The first legal cure that is still to be tried, and the index of the one after it."""
    for index in range(memory.next_cure(rule, symptom), len(rule.cures)):
        cure = rule.cures[index]
        target = _legal(state, cure.adaptation, cure.place(evidence, symptom))
        if target is not None:
            reason = f"{rule.name}: {symptom.detail}"
            return Proposal(cure.adaptation, target, reason, cure.parameters), index + 1
    return None, len(rule.cures)


def _legal(
    state: ModelGraphState, adaptation: AdaptationType, place: Place
) -> tuple[int, ...] | None:
    """The target of a decision: what of the place can take the adaptation; `None` if nothing."""
    column = ACTIONS.index(adaptation)
    if place is None:
        return () if bool(state.graph_data.model_action_mask[0, column]) else None
    able = state.graph_data.action_mask[:, column].tolist()
    return tuple(layer for layer in place if able[layer]) or None
