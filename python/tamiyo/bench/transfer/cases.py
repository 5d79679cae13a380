"""Which runs are made; everything about one follows from its number, its fault and its length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from random import Random

from tamiyo.bench.transfer.faults import HEALTHY, LiveFault, fault_named
from tamiyo.bench.transfer.hosts import LiveHost, draw_host
from tamiyo.bench.transfer.watching import Watching, watching
from tamiyo.envs import Fault

__all__ = ["STEPS", "Case", "faulty_cases", "healthy_cases"]

STEPS = 800
"""Optimiser steps of a run."""
EARLIEST, LATEST = 0.125, 0.5
"""When a fault may strike in mid-run: from so much of the run after attaching, to so much of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run. Runs that differ in their fault alone are twins: same weights, same data order.

    Raises:
        ValueError: the host of this number cannot have the fault, or is not hurt by it.
    """

    number: int
    fault: str = HEALTHY
    steps: int = STEPS

    def __post_init__(self) -> None:
        if self.kind is not None and not self.kind.places(self.host):
            raise ValueError(f"host {self.number} cannot have the fault {self.fault!r}")

    @property
    def key(self) -> str:
        """Identifies it."""
        return f"{self.number}|{self.fault}|{self.steps}"

    @property
    def host(self) -> LiveHost:
        """What is trained."""
        return draw_host(self.number)

    @property
    def watching(self) -> Watching:
        """How it is watched."""
        return watching(self.number)

    @property
    def kind(self) -> LiveFault | None:
        """The kind of fault; `None` in a healthy run."""
        return None if self.fault == HEALTHY else fault_named(self.fault)

    @property
    def twin(self) -> "Case":
        """The same run without its fault."""
        return Case(self.number, HEALTHY, self.steps)

    @property
    def layer(self) -> int:
        """The place of the fault.

        Raises:
            ValueError: a healthy run.
        """
        return self._draw()[0]

    @property
    def strike(self) -> int:
        """Optimiser steps after which the fault strikes.

        Raises:
            ValueError: a healthy run.
        """
        return self._draw()[1]

    def injected(self) -> Fault | None:
        """What is done to the run, and when."""
        if self.kind is None:
            return None
        layer, step = self._draw()
        return self.kind.make(self.host, step, layer)

    def _draw(self) -> tuple[int, int]:
        if self.kind is None:
            raise ValueError("a healthy run has no fault")
        random = Random(self.key)  # noqa: S311 - no secret
        layer = random.choice(self.kind.places(self.host))
        earliest = self.watching.first_step(self.steps) + round(EARLIEST * self.steps)
        step = random.randint(earliest, round(LATEST * self.steps))
        return layer, 0 if self.kind.at_birth else step


def healthy_cases(runs: int, steps: int = STEPS) -> list[Case]:
    """The first so many hosts, healthy."""
    return [Case(number, HEALTHY, steps) for number in range(runs)]


def faulty_cases(
    runs: int, faults: Sequence[LiveFault], steps: int = STEPS, *, first: int = 0
) -> list[Case]:
    """For each fault the first so many hosts from a number on that it hurts."""
    return [
        Case(number, fault.name, steps)
        for fault in faults
        for number in islice(_able(fault, first), runs)
    ]


def _able(fault: LiveFault, first: int) -> Iterator[int]:
    return (number for number in count(first) if fault.places(draw_host(number)))
