"""What experience is made of: up to 16 consecutive decisions of one episode, as columns."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tamiyo.learn.observations import Array, Observations, frozen
from tamiyo.policy.actions import WHOLE_MODEL

__all__ = ["SEGMENT_LENGTH", "TARGETS", "Segment", "unknown_targets"]

SEGMENT_LENGTH = 16
"""Most decisions in one segment."""

TARGETS = ("safety", "risk", "urgency", "health_trend", "stability_trend", "urgency_trend")
"""What the other heads should have said: outcomes in [0, 1], then trends in [-1, 1]."""

LOWEST_TARGETS = np.array([0, 0, 0, -1, -1, -1], np.float32)


def unknown_targets(steps: int) -> npt.NDArray[np.float32]:
    """[T, 6]: NaN, for decisions whose outcomes nobody measured."""
    return np.full((steps, len(TARGETS)), np.nan, np.float32)


_COLUMNS: dict[str, type[np.generic]] = {
    "adapt": np.bool_,
    "target": np.int64,
    "type": np.int64,
    "log_prob": np.float32,
    "reward": np.float32,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "sampled": np.bool_,
    "targets": np.float32,
}
"""Type of every column of `Segment` that has one row per decision."""


@dataclass(frozen=True, eq=False)
class Segment:
    """T <= 16 consecutive decisions of one episode, with the T + 1 moments around them.

    An action is what `policy.Action` says: `target` is -1 for the whole model, and where nothing
    was done `target` is -1 and `type` is 0.

    Raises:
        ValueError: columns that do not fit each other, an end of the episode before the last
            decision, an action that was not legal, a reward that is not finite, or a
            log-probability of a sampled action that is none.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = tuple(_COLUMNS)

    observations: Observations
    """T + 1 moments; T where a `successor` stands for the last."""
    adapt: npt.NDArray[np.bool_]
    """[T]."""
    target: npt.NDArray[np.int64]
    """[T]: row of the layer, or -1."""
    type: npt.NDArray[np.int64]
    """[T]: index into `graph.schema.ACTIONS`."""
    log_prob: npt.NDArray[np.float32]
    """[T]: joint log-probability under the policy that acted; NaN where that is not known."""
    reward: npt.NDArray[np.float32]
    """[T]: what followed each decision."""
    terminated: npt.NDArray[np.bool_]
    """[T]: the episode ended, and nothing is worth anything after it."""
    truncated: npt.NDArray[np.bool_]
    """[T]: the episode was cut off; the last moment is what it looked like then."""
    sampled: npt.NDArray[np.bool_]
    """[T]: the policy drew the action and no check changed it. Only these train the policy."""
    policy_version: int
    """Version of the policy that acted."""
    targets: npt.NDArray[np.float32]
    """[T, 6]: `TARGETS`, NaN where not known."""
    successor: Observations | None = None
    """The last moment, where its structure is another one: the last decision changed it."""

    def __post_init__(self) -> None:
        steps = len(np.atleast_1d(self.adapt))
        for name, dtype in _COLUMNS.items():
            array = frozen(getattr(self, name), dtype)
            object.__setattr__(self, name, array)
            expected = (steps, len(TARGETS)) if name == "targets" else (steps,)
            if array.shape != expected:
                raise ValueError(f"{name} must be {expected}, not {array.shape}")
        if not 1 <= steps <= SEGMENT_LENGTH:
            raise ValueError(f"a segment has 1 to {SEGMENT_LENGTH} decisions, not {steps}")
        if self.policy_version < 0:
            raise ValueError(f"policy_version must not be negative: {self.policy_version}")
        self._check_moments()
        self._check_values()
        self._check_actions()

    def __len__(self) -> int:
        return len(self.adapt)

    @property
    def blocks(self) -> tuple[Observations, ...]:
        """The T + 1 moments in order, as blocks of one structure each."""
        return (
            (self.observations,) if self.successor is None else (self.observations, self.successor)
        )

    @property
    def nbytes(self) -> int:
        """Memory of the columns, without the structures."""
        own = sum(array.nbytes for _, array in self.columns())
        return own + sum(block.nbytes for block in self.blocks)

    def columns(self) -> Iterator[tuple[str, Array]]:
        """Name and array of every column that has one row per decision."""
        return ((name, getattr(self, name)) for name in _COLUMNS)

    def _check_moments(self) -> None:
        if self.successor is not None and len(self.successor) != 1:
            raise ValueError(f"a successor is one moment, not {len(self.successor)}")
        moments = sum(len(block) for block in self.blocks)
        if moments != len(self) + 1:
            raise ValueError(f"{len(self)} decisions need {len(self) + 1} moments, not {moments}")
        if (self.terminated | self.truncated)[:-1].any():
            raise ValueError("an episode ends at the last decision of a segment or not in it")

    def _check_values(self) -> None:
        if not np.isfinite(self.reward).all():
            raise ValueError("reward must be finite")
        known = self.log_prob[self.sampled]
        # A log-probability that was added up may end a rounding error above zero.
        if not (np.isfinite(known) & (known <= 1e-4)).all():
            raise ValueError("log_prob of a sampled action must be finite and at most 0")
        outside = (self.targets < LOWEST_TARGETS) | (self.targets > 1)
        if outside.any():
            raise ValueError(f"target {TARGETS[np.argwhere(outside)[0, 1]]} is out of range")

    def _check_actions(self) -> None:
        idle = ~self.adapt
        if (self.target[idle] != WHOLE_MODEL).any() or self.type[idle].any():
            raise ValueError("where nothing is done, target is -1 and type 0")
        nodes, types = self.observations.action_mask.shape[1:]
        if ((self.target < WHOLE_MODEL) | (self.target >= nodes)).any():
            raise ValueError(f"target must be a layer below {nodes}, or -1 for the whole model")
        if ((self.type < 0) | (self.type >= types)).any():
            raise ValueError(f"type must be one of {types}")
        legal = np.where(
            self.target == WHOLE_MODEL,
            self.observations.model_action_mask[np.arange(len(self)), self.type],
            self.observations.action_mask[np.arange(len(self)), self.target, self.type],
        )
        if not legal[self.adapt].all():
            raise ValueError(f"decision {np.flatnonzero(self.adapt & ~legal)[0]} was not legal")
