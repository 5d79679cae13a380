"""The rules, and four more for faults of Training-v0 that no rule of live runs is about.

A learned policy is trained on these faults, so that rules which never heard of some of them are a
weak opponent. The thresholds lie between what sound and faulty runs of the *training* split showed,
and have not been moved since. Everything is read from the same `ModelGraphState`s, and a symptom
has to be seen twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tamiyo.contracts import AdaptationDecision, AdaptationType
from tamiyo.envs.training.faults import WHOLE_RUN
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.policy import PolicyConfig, RulesPolicy
from tamiyo.policy.dosage import is_too_large
from tamiyo.policy.proposal import Proposal, to_decision

__all__ = ["TunedRules"]

TINY_UPDATES = 3e-5
"""Median update ratio of a run that stands still; sound ones had 1.3e-4 or more."""
LEFT_BEHIND = 0.1
"""Update ratio of a frozen layer over the median; in sound runs the least was .15."""
NARROW = 0.4
"""Width of a bottleneck over the median width; in sound runs the least was .67."""
PATIENCE = 2
"""Readings in a row."""


def _oversized(state: ModelGraphState) -> int | None:
    """The first layer whose weights are larger than any initialisation makes them."""
    norms, widths = _linear(state, "weight_norm"), _widths(state)
    sizes = enumerate(zip(norms.tolist(), widths.tolist(), strict=True))
    return next((2 * i for i, (norm, width) in sizes if is_too_large(norm, width)), None)


def _bottleneck(state: ModelGraphState) -> int | None:
    """The narrowest hidden layer, if it is far narrower than its network, or a single unit."""
    hidden = _widths(state)[:-1]
    narrowest = int(hidden.argmin())
    limit = max(NARROW * float(np.median(hidden)), 1.5)
    return 2 * narrowest if hidden[narrowest] < limit else None


def _standstill(state: ModelGraphState) -> int | None:
    """The run, if a step changes next to nothing anywhere."""
    ratios = _linear(state, "update_ratio")
    return WHOLE_RUN if np.isfinite(ratios).all() and np.median(ratios) < TINY_UPDATES else None


def _left_behind(state: ModelGraphState) -> int | None:
    """The layer that moves least, if the others move far more."""
    ratios = _linear(state, "update_ratio")
    if not np.isfinite(ratios).all():
        return None
    least = int(ratios.argmin())
    return 2 * least if ratios[least] < LEFT_BEHIND * np.median(ratios) else None


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    find: Callable[[ModelGraphState], int | None]
    """The node that is the culprit, or `WHOLE_RUN`."""
    cure: AdaptationType


RULES: Sequence[_Rule] = (
    _Rule("oversized weights", _oversized, AdaptationType.REINITIALIZE),
    _Rule("bottleneck", _bottleneck, AdaptationType.WIDEN),
    _Rule("standstill", _standstill, AdaptationType.SCALE_LEARNING_RATE),
    _Rule("left behind", _left_behind, AdaptationType.SCALE_LEARNING_RATE),
)


@dataclass
class _Memory:
    seen: dict[tuple[str, int], int] = field(default_factory=dict)
    """Readings in a row, by rule and culprit."""
    tried: set[tuple[str, int]] = field(default_factory=set)


class TunedRules:
    """Four rules, and the published ones where none of these has anything to do.

    Args:
        policy_config: Budget and times.
    """

    name, version = "tuned", "1"

    def __init__(self, policy_config: PolicyConfig) -> None:
        self.config = policy_config
        self._rules = RulesPolicy(policy_config)
        self._memory: dict[str | None, _Memory] = {}

    def make_decision(self, state: ModelGraphState) -> AdaptationDecision | None:
        """A decision or none; each of the four cures is tried once in a place."""
        proposal = self._propose(state, self._memory.setdefault(state.run, _Memory()))
        if proposal is None:
            return self._rules.make_decision(state)
        self._rules.note_decision(state)
        ttl = self.config.decision_ttl_steps
        return to_decision(proposal, state, self.name, self.version, ttl)

    def _propose(self, state: ModelGraphState, memory: _Memory) -> Proposal | None:
        seen, proposal = dict[tuple[str, int], int](), None
        for rule in RULES:
            culprit = rule.find(state)
            if culprit is None:
                continue
            key = rule.name, culprit
            seen[key] = memory.seen.get(key, 0) + 1
            due = seen[key] >= PATIENCE and key not in memory.tried
            if proposal is None and due and _legal(state, culprit, rule.cure):
                memory.tried.add(key)
                target = () if culprit == WHOLE_RUN else (culprit,)
                proposal = Proposal(rule.cure, target, rule.name)
        memory.seen = seen
        return proposal


def _legal(state: ModelGraphState, culprit: int, cure: AdaptationType) -> bool:
    data, column = state.graph_data, ACTIONS.index(cure)
    mask = data.model_action_mask[0] if culprit == WHOLE_RUN else data.action_mask[culprit]
    return bool(mask[column])


def _linear(state: ModelGraphState, measurement: str) -> npt.NDArray[np.floating]:
    """Last readings of the linear layers, which are every other node."""
    last: npt.NDArray[np.floating] = state.layers[f"{measurement}_last"][::2]
    return last


def _widths(state: ModelGraphState) -> npt.NDArray[np.int64]:
    """Units of the linear layers, the last of which are the classes."""
    nodes = () if state.topology is None else state.topology.nodes[::2]
    return np.array([node.shape[0] for node in nodes])
