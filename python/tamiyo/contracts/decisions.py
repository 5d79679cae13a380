"""What the controller asks for, and what came of it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tamiyo.contracts.wire import ControlMessage

__all__ = ["AdaptationDecision", "AdaptationResult", "AdaptationType", "Outcome"]

Probability = Annotated[float, Field(ge=0, le=1)]


class AdaptationType(StrEnum):
    """What can be done to a live network. Every one has an inverse."""

    ADD_SEED = "add_seed"
    REMOVE_SEED = "remove_seed"
    WIDEN = "widen"
    PRUNE = "prune"
    REINITIALIZE = "reinitialize"
    CHANGE_ACTIVATION = "change_activation"
    INSERT_NORMALIZATION = "insert_normalization"
    SCALE_LEARNING_RATE = "scale_learning_rate"
    CLIP_GRADIENTS = "clip_gradients"
    RESTORE = "restore"


class AdaptationDecision(ControlMessage):
    """One adaptation of one layer, of several, or of the whole model, applied as one."""

    decision_id: str
    """Unique; applying is idempotent by this id."""
    run: str
    term: int = Field(default=0, ge=0)
    """The controller's term. A host ignores decisions of an older term (fencing)."""
    adaptation: AdaptationType
    target: tuple[int, ...] = ()
    """Layer ids; empty means the whole model."""
    parameters: dict[str, float | str] = Field(default_factory=dict)
    """What the adaptation needs, for example `factor` for a learning rate."""
    issued_at_step: int = Field(default=0, ge=0)
    expires_at_step: int = Field(ge=0)
    """Last optimiser step at which it may still be applied."""
    confidence: Probability = 1.0
    urgency: Probability = 0.0
    risk: Probability | None = None
    safety: Probability | None = None
    uncertainty: Probability | None = None
    reason: str = ""
    """Why, in words that a person can check against the signals."""
    policy: str = ""
    """Name of the policy that decided."""
    policy_version: str = ""
    log_prob: float | None = None
    value: float | None = None


class Outcome(StrEnum):
    """What became of a decision. `APPLIED` is provisional, the others are final."""

    APPLIED = "applied"
    KEPT = "kept"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    EXPIRED = "expired"
    FAILED = "failed"


class AdaptationResult(ControlMessage):
    """What the host did with a decision, and what it measured."""

    decision_id: str
    run: str
    step: int = Field(ge=0)
    outcome: Outcome
    reason: str = ""
    loss_before: float | None = None
    """Robust level (median) of the training loss before the adaptation."""
    loss_after: float | None = None
    """The same, at the end of the watch."""
    steps_lost: int = Field(default=0, ge=0)
    """Optimiser steps undone, if the weights went back to an earlier step."""
    verified: bool | None = None
    """After a rollback: whether the restored state was compared and found equal."""
    duration_ms: float = Field(default=0.0, ge=0)
    """Time taken from the training loop."""
