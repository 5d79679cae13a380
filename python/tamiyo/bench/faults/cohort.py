"""Rows side by side: a policy's run, the same untouched, its clean twins, the oracle's."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np

from tamiyo.bench.faults.companion import NOBODY
from tamiyo.bench.faults.rows import FaultRow
from tamiyo.bench.faults.validity import POINTS, TWINS, Comparison, compare

__all__ = ["ORACLE", "FaultCase", "HealthyCase", "Rows"]

ORACLE = "oracle"


@dataclass(frozen=True)
class FaultCase:
    """One faulty run of a policy, and what it is measured by.

    Attributes:
        row: The run.
        untouched: The same with nobody beside it.
        twins: Its clean twins, each with nobody beside it.
        told: The same with the oracle beside it; `None` if there is none.
    """

    row: FaultRow
    untouched: FaultRow
    twins: tuple[FaultRow, ...]
    told: FaultRow | None

    @cached_property
    def clean(self) -> tuple[float, ...]:
        """Accuracies of the clean twins."""
        return tuple(twin.accuracy for twin in self.twins)

    @cached_property
    def comparison(self) -> Comparison:
        """The untouched run beside its clean twins."""
        return compare(self.untouched.accuracy, self.clean)

    @cached_property
    def goal(self) -> float:
        """Accuracy from which it counts as repaired."""
        return float(np.mean(self.clean)) - POINTS

    @property
    def valid(self) -> bool:
        """Whether the fault did harm in this run."""
        return self.comparison.faulty

    @property
    def repaired(self) -> bool:
        """Whether it ended within two points of the clean twins."""
        return self.row.accuracy >= self.goal

    @property
    def curable(self) -> bool:
        """Whether the oracle has repaired it."""
        return self.told is not None and self.told.accuracy >= self.goal

    @property
    def gained(self) -> float:
        """Accuracy above that of the untouched run."""
        return self.row.accuracy - self.untouched.accuracy

    @property
    def attainable(self) -> float:
        """What the oracle has gained; NaN without one."""
        return np.nan if self.told is None else self.told.accuracy - self.untouched.accuracy

    @property
    def repair_steps(self) -> float:
        """Steps until accuracy was there for good; infinite if it never was.

        They count from the onset, or from where the typical clean twin got there if that is later:
        a fault that was there from the beginning is not blamed for the time that learning takes.
        """
        usual = median(twin.settled_at(self.goal) for twin in self.twins)
        due = max(float(self.row.onset), usual)
        return max(0.0, self.row.settled_at(self.goal) - due)


@dataclass(frozen=True, slots=True)
class HealthyCase:
    """One healthy run of a policy, and the same with nobody beside it."""

    row: FaultRow
    untouched: FaultRow


class Rows:
    """All rows of a measurement, by what they are.

    Args:
        rows: In any order.
    """

    def __init__(self, rows: Iterable[FaultRow]) -> None:
        self._all = list(rows)
        self._known = {
            (row.policy, row.fault, row.architecture, row.data, row.seed): row for row in self._all
        }
        self._clean: dict[tuple[str, str], list[FaultRow]] = {}
        for row in self._all:
            if row.healthy and row.policy == NOBODY and row.seed < TWINS:
                self._clean.setdefault((row.architecture, row.data), []).append(row)

    @property
    def policies(self) -> Sequence[str]:
        """Their names, in the order of the rows."""
        return list(dict.fromkeys(row.policy for row in self._all))

    @property
    def acting(self) -> Sequence[str]:
        """The same without nobody."""
        return [policy for policy in self.policies if policy != NOBODY]

    def faulty(self, policy: str) -> list[FaultCase]:
        """The faulty runs of a policy that have all that they are measured by."""
        return [case for row in self._of(policy) if not row.healthy for case in self._cases(row)]

    def healthy(self, policy: str) -> list[HealthyCase]:
        """The healthy ones."""
        return [
            HealthyCase(row, untouched)
            for row in self._of(policy)
            if row.healthy and (untouched := self._like(row, NOBODY)) is not None
        ]

    def _of(self, policy: str) -> Iterator[FaultRow]:
        return (row for row in self._known.values() if row.policy == policy)

    def _like(self, row: FaultRow, policy: str) -> FaultRow | None:
        return self._known.get((policy, row.fault, row.architecture, row.data, row.seed))

    def _cases(self, row: FaultRow) -> Iterator[FaultCase]:
        untouched = self._like(row, NOBODY)
        clean = self._clean.get((row.architecture, row.data), [])
        if untouched is not None and len(clean) == TWINS:
            yield FaultCase(row, untouched, tuple(clean), self._like(row, ORACLE))
