"""From single transitions, as a live loop reports them, to segments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tamiyo.contracts import AdaptationDecision
from tamiyo.graph import ModelGraphState
from tamiyo.graph.schema import ACTIONS
from tamiyo.learn.observations import Observations
from tamiyo.learn.segments import SEGMENT_LENGTH, TARGETS, Segment
from tamiyo.policy.actions import WHOLE_MODEL

__all__ = ["OpenEpisode", "Step", "action_of", "target_row"]


class Step(NamedTuple):
    """One decision, its moment and what followed."""

    observation: Observations
    adapt: bool
    target: int
    type: int
    log_prob: float
    reward: float
    sampled: bool
    targets: tuple[float, ...]
    td_error: float
    """NaN where not known."""


def action_of(state: ModelGraphState, decision: AdaptationDecision | None) -> tuple[bool, int, int]:
    """A decision, or none, as the policy's action: adapt, row of the target, type.

    Raises:
        ValueError: several layers at once, which no action of the policy stands for, or a layer
            that is not in the graph.
    """
    if decision is None:
        return False, WHOLE_MODEL, 0
    kind = ACTIONS.index(decision.adaptation)
    if not decision.target:
        return True, WHOLE_MODEL, kind
    if len(decision.target) > 1:
        raise ValueError("the policy's actions are about one layer or the whole model")
    rows = np.flatnonzero(state.layer_ids == decision.target[0])
    if not len(rows):
        raise ValueError(f"layer {decision.target[0]} is not in the graph")
    return True, int(rows[0]), kind


def target_row(targets: Mapping[str, float] | None) -> tuple[float, ...]:
    """`TARGETS` in order, NaN for those that are not given.

    Raises:
        ValueError: a name that is none of them.
    """
    given = dict(targets or {})
    row = tuple(given.pop(name, float("nan")) for name in TARGETS)
    if given:
        raise ValueError(f"unknown targets: {', '.join(given)}")
    return row


@dataclass
class OpenEpisode:
    """The newest decisions of an episode, fewer than make a segment or without what followed.

    All of them are of one policy version and on one graph structure.
    """

    version: int
    steps: list[Step] = field(default_factory=list)
    successor: Observations | None = None
    """The moment after the last step, where the caller gave it."""

    def fits(self, observation: Observations, version: int) -> bool:
        """Whether a decision on this moment can follow the last step in the same segment."""
        return (
            len(self.steps) < SEGMENT_LENGTH
            and self.version == version
            and self.steps[-1].observation.structure.key == observation.structure.key
            and (self.successor is None or self.successor.equals(observation))
        )

    def add(self, step: Step, successor: Observations | None) -> None:
        """One more decision."""
        self.steps.append(step)
        self.successor = successor

    def close(
        self, successor: Observations, *, terminated: bool = False, truncated: bool = False
    ) -> Segment:
        """The segment of all steps.

        Args:
            successor: The moment after the last step.
            terminated: The last step ended the episode.
            truncated: The episode was cut off after the last step.
        """
        moments = [step.observation for step in self.steps]
        changed = successor.structure.key != moments[0].structure.key
        last = np.arange(len(self.steps)) == len(self.steps) - 1
        return Segment(
            observations=Observations.concatenate(moments if changed else [*moments, successor]),
            adapt=np.array([step.adapt for step in self.steps]),
            target=np.array([step.target for step in self.steps]),
            type=np.array([step.type for step in self.steps]),
            log_prob=np.array([step.log_prob for step in self.steps], np.float32),
            reward=np.array([step.reward for step in self.steps], np.float32),
            terminated=last & terminated,
            truncated=last & truncated,
            sampled=np.array([step.sampled for step in self.steps]),
            policy_version=self.version,
            targets=np.array([step.targets for step in self.steps], np.float32),
            successor=successor if changed else None,
        )

    @property
    def last_moment(self) -> Observations:
        """The newest moment known."""
        return self.steps[-1].observation if self.successor is None else self.successor

    @property
    def error(self) -> float | None:
        """Mean size of the steps' errors; None where one of them is not known."""
        mean = float(np.mean([abs(step.td_error) for step in self.steps]))
        return None if np.isnan(mean) else mean

    @classmethod
    def reopen(cls, segment: Segment, errors: list[float], has_successor: bool) -> "OpenEpisode":
        """What was closed on its last moment, as it was before.

        Args:
            segment: The steps, and a last moment that may only fill the place.
            errors: The `td_error` of each step.
            has_successor: Whether the last moment is the one that the caller gave.
        """
        episode = cls(segment.policy_version)
        for at, error in enumerate(errors):
            episode.steps.append(
                Step(
                    observation=segment.observations[at : at + 1],
                    adapt=bool(segment.adapt[at]),
                    target=int(segment.target[at]),
                    type=int(segment.type[at]),
                    log_prob=float(segment.log_prob[at]),
                    reward=float(segment.reward[at]),
                    sampled=bool(segment.sampled[at]),
                    targets=tuple(segment.targets[at].tolist()),
                    td_error=error,
                )
            )
        if has_successor:
            episode.successor = segment.blocks[-1][-1:]
        return episode
