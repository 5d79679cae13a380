"""The life of a seed as a table of legal transitions, and how fast it is blended in.

A *seed* is a small residual module that is added to a layer of a running network. It learns in
isolation first, is then blended in, and becomes a permanent part of the network or is culled.
"""

import math
from collections.abc import Callable, Mapping
from enum import StrEnum

__all__ = ["SCHEDULES", "TRANSITIONS", "IllegalTransitionError", "Stage", "transition"]


class Stage(StrEnum):
    """Where a seed stands."""

    DORMANT = "dormant"
    """Planned; nothing of it is in the model."""
    GERMINATED = "germinated"
    """In the model with an output of zero, not trained yet."""
    TRAINING = "training"
    """Learns from the gradient at its layer's output, while the network does not feel it."""
    BLENDING = "blending"
    """Its share of the output, alpha, moves between 0 and 1."""
    HOLDING = "holding"
    """Fully blended in and watched."""
    PERMANENT = "permanent"
    """A part of the network."""
    CULLED = "culled"
    """Taken out because it was of no use, or on request."""
    ROLLED_BACK = "rolled_back"
    """Taken out because the adaptation that planted it was undone."""

    @property
    def ended(self) -> bool:
        """Whether nothing of the seed is left in the model."""
        return self in (Stage.CULLED, Stage.ROLLED_BACK)


_TAKEN_OUT = frozenset((Stage.CULLED, Stage.ROLLED_BACK))

TRANSITIONS: Mapping[Stage, frozenset[Stage]] = {
    Stage.DORMANT: frozenset((Stage.GERMINATED,)),
    Stage.GERMINATED: frozenset((Stage.TRAINING,)) | _TAKEN_OUT,
    Stage.TRAINING: frozenset((Stage.BLENDING,)) | _TAKEN_OUT,
    Stage.BLENDING: frozenset((Stage.HOLDING,)) | _TAKEN_OUT,
    # Back to blending means out again.
    Stage.HOLDING: frozenset((Stage.PERMANENT, Stage.BLENDING)) | _TAKEN_OUT,
    Stage.PERMANENT: frozenset((Stage.BLENDING, Stage.ROLLED_BACK)),
    Stage.CULLED: frozenset(),
    Stage.ROLLED_BACK: frozenset(),
}
"""Stages that may follow each stage."""


class IllegalTransitionError(ValueError):
    """A seed was to skip a stage, to go back, or to live on after its end."""


def transition(now: Stage, to: Stage) -> Stage:
    """The stage `to`, if it may follow `now`.

    Raises:
        IllegalTransitionError: it may not.
    """
    if to not in TRANSITIONS[now]:
        raise IllegalTransitionError(f"a seed cannot go from {now} to {to}")
    return to


_STEEPNESS = 12.0


def _linear(progress: float) -> float:
    return progress


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 - math.cos(math.pi * progress))


def _sigmoid(progress: float) -> float:
    # Stretched so that it begins at exactly 0 and ends at exactly 1.
    low, high = _logistic(-_STEEPNESS / 2), _logistic(_STEEPNESS / 2)
    return (_logistic(_STEEPNESS * (progress - 0.5)) - low) / (high - low)


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "sigmoid": _sigmoid,
}
"""Alpha in [0, 1] by progress in [0, 1]; each rises from exactly 0 to exactly 1."""
