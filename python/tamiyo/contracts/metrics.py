"""Model-level telemetry: loss and validation metrics as the trainer reports them."""

from typing import Annotated

from pydantic import Field

from tamiyo.contracts.wire import ControlMessage

__all__ = ["PerformanceMetrics"]


class PerformanceMetrics(ControlMessage):
    """A few numbers about the whole run at one optimiser step. What is absent was not measured."""

    run: str
    step: int = Field(ge=0)
    epoch: int = Field(default=0, ge=0)
    timestamp: float
    """Seconds since the Unix epoch, producer's clock."""
    loss: float | None = None
    """Median training loss since the last report; absent when it was not finite."""
    loss_level: float | None = None
    """Slow robust level of the training loss, the run's own history."""
    loss_nonfinite: int = Field(default=0, ge=0)
    """Steps with a NaN or infinite loss since the last report."""
    validation_loss: float | None = None
    validation_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    learning_rate: float | None = None
    progress: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the planned run that is done, where the trainer said how long it will be."""
    snapshot_step: int | None = None
    """Step of the last known good snapshot that `restore` would return to."""
    alarm: str | None = None
    """What the host finds wrong with the run at this moment, in words; absent while nothing is."""
    probe_overhead: float | None = None
    """Share of the run's time that probing took, self-timed."""
