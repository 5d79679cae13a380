"""How Tamiyo is attached: as different users would do it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["READINGS", "Reading", "Watching", "watching"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How often layers are measured.

    Attributes:
        name: Name for tables.
        options: Options of `tamiyo.attach`.
    """

    name: str
    options: Mapping[str, float]


REPEATABLE = {"snapshot_budget": 1.0}
"""With room for every snapshot, the last good one does not depend on the clock."""

READINGS: Sequence[Reading] = (
    Reading("every step", {"probe_every": 1, **REPEATABLE}),
    Reading("every 10 steps", {"probe_every": 10, **REPEATABLE}),
    Reading("every 50 steps", {"probe_every": 50, **REPEATABLE}),
    # What a user gets who asks for nothing. Readings come when there was time for them, so these
    # runs alone may go another way on a machine that is faster or busier.
    Reading("by default", {}),
)

ATTACH_SHARE = 0.25
"""Share of a run that is over where Tamiyo is attached in its middle."""


@dataclass(frozen=True, slots=True)
class Watching:
    """One way to attach.

    Attributes:
        reading: Name of one of `READINGS`.
        reports: Whether the loop evaluates now and then and calls `control.report`.
        length_known: Whether `total_steps` is given.
        late: Whether it is attached in the middle of the run.
    """

    reading: str
    reports: bool
    length_known: bool
    late: bool

    def first_step(self, steps: int) -> int:
        """Optimiser steps before it is attached."""
        return round(ATTACH_SHARE * steps) if self.late else 0

    def options(self, steps: int) -> dict[str, Any]:
        """Options of `tamiyo.attach`, for a run of so many steps."""
        chosen = next(reading for reading in READINGS if reading.name == self.reading)
        # Who attaches in the middle counts from there.
        left = steps - self.first_step(steps)
        return {**chosen.options, "total_steps": left if self.length_known else None}

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def watching(number: int) -> Watching:
    """The way of that number; any 48 in a row have all combinations, a third of them late."""
    rest, reading = divmod(number, len(READINGS))
    rest, reports = divmod(rest, 2)
    rest, length_known = divmod(rest, 2)
    return Watching(READINGS[reading].name, bool(reports), bool(length_known), rest % 3 == 2)
