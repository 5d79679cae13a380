"""What a session has done so far, and what it cost."""

from dataclasses import dataclass

from tamiyo.host.desk import Mode

__all__ = ["SessionStats"]


@dataclass(frozen=True, slots=True)
class SessionStats:
    """Counts since the session began."""

    steps: int
    samples: int
    mode: Mode
    """The mode in effect, which differs from the one asked for while no loss is reported."""
    overhead: float
    """Share of the run's time that the session took, all parts together, by its own clock."""
    probe_overhead: float
    """The probe's part of it."""
    health: float
    """Mean health of the layers at the last sample; NaN before one."""
    measured: float
    """Share of the health score's inputs that the last sample measured; NaN before one."""
    alarm: str | None
    snapshot_step: int | None
    outcomes: dict[str, int]
    """Results by outcome; a decision that was applied counts there and under its final outcome."""
    ignored: dict[str, int]
    """Messages on the decision stream that were not taken, by reason."""
    lost: dict[str, int]
    """Messages that the bus did not take, by topic."""
    errors: dict[str, int]
    """Errors of Tamiyo's own parts; a part that failed is switched off."""
