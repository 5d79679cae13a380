"""How runs are watched: how often, from when on, and what nobody says about them.

Live runs differ in all of this (`tamiyo.attach` may come in the middle of a training, read every
step or every hundredth, never hear of held-out data or of how long the training will be), and a
policy that has only seen runs watched in one way takes another way of watching for a fault.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["VARIED", "Sensing", "SensingConfig"]

EAGER = (1, 1, 2, 4)
"""First intervals of runs that are watched from their first step on."""

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SensingConfig:
    """What is drawn from, with equal probabilities; by default there is one way of watching.

    Raises:
        ValueError: nothing to draw from, or numbers that make no sense.
    """

    paces: tuple[int, ...] = (1,)
    """Factors on the configured interval between two decisions."""
    readings: tuple[int, ...] = (1,)
    """Measured steps in an interval, evenly spread; the last one always is."""
    leads: tuple[int, ...] = (0,)
    """Intervals that were trained before anybody watched."""
    windows: tuple[int, ...] = (100,)
    """Readings of which averages and trends are made."""
    eager: tuple[bool, ...] = (False,)
    """Whether decisions begin with the first steps (`EAGER`)."""
    reports_every: tuple[int, ...] = (1,)
    """Decisions from one report of the loss to the next; a run in alarm reports at once."""
    budgets: tuple[int, ...] = (6,)
    """Adaptations that count as all that are allowed, where the share used up is shown."""
    held_out_unknown: float = 0.0
    """Share of the runs without a word about held-out data."""
    length_unknown: float = 0.0
    """Share of the runs that do not say how long they will be."""

    def __post_init__(self) -> None:
        if not self.eager:
            raise ValueError("watching begins with the first steps or not, or both at times")
        positive = (self.paces, self.readings, self.windows, self.reports_every, self.budgets)
        if not (all(positive) and self.leads) or min(map(min, positive)) < 1 or min(self.leads) < 0:
            raise ValueError("every way of watching needs a number to draw, and no lead below 0")
        if not all(0 <= share <= 1 for share in (self.held_out_unknown, self.length_unknown)):
            raise ValueError("a share of the runs is between 0 and 1")


VARIED = SensingConfig(
    paces=(1, 1, 2, 4),
    readings=(1, 1, 2, 5),
    leads=(0, 0, 2, 10),
    windows=(100, 100, 10),
    eager=(False, True),
    reports_every=(1, 2, 5, 10),
    budgets=(6, 12, 100),
    held_out_unknown=0.5,
    length_unknown=0.5,
)
"""What policies are trained and judged on."""


@dataclass(frozen=True, eq=False, slots=True)
class Sensing:
    """How one cohort of H runs is watched; what is one number holds for all of them."""

    interval: int
    """Optimiser steps between two decisions."""
    eager: bool
    readings: int
    lead: int
    """Optimiser steps before the first interval."""
    window: int
    reports_every: Ints
    """[H]."""
    budgets: Ints
    """[H]."""
    held_out_known: Bools
    """[H]."""
    length_known: Bools
    """[H]."""

    @classmethod
    def draw(
        cls, random: np.random.Generator, config: SensingConfig, interval: int, hosts: int
    ) -> "Sensing":
        """How a cohort of H runs is watched, with this many steps in a usual interval."""
        steps = interval * int(random.choice(config.paces))
        return cls(
            interval=steps,
            eager=bool(random.choice(config.eager)),
            readings=int(random.choice(config.readings)),
            lead=steps * int(random.choice(config.leads)),
            window=int(random.choice(config.windows)),
            reports_every=random.choice(config.reports_every, hosts),
            budgets=random.choice(config.budgets, hosts),
            held_out_known=random.random(hosts) >= config.held_out_unknown,
            length_known=random.random(hosts) >= config.length_unknown,
        )

    def steps(self, decisions: int) -> int:
        """Optimiser steps of a run; the first interval comes before the first decision."""
        return self.lead + sum(self.interval_before(moment) for moment in range(decisions + 1))

    def interval_before(self, moment: int) -> int:
        """Optimiser steps before a decision, counted from 0."""
        if self.eager and moment < len(EAGER):
            return min(EAGER[moment], self.interval)
        return self.interval

    def strides(self, moment: int) -> list[int]:
        """Optimiser steps from reading to reading, in the interval before a decision."""
        steps = self.interval_before(moment)
        ends = np.linspace(0, steps, min(self.readings, steps) + 1).round().astype(int)
        strides: list[int] = np.diff(ends).tolist()
        return strides
