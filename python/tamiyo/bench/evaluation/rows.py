"""What was seen of every run of a cohort, in arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tamiyo.envs.training.faults import WHOLE_RUN, FaultKind, cures
from tamiyo.graph.schema import ACTIONS

__all__ = ["KINDS", "NEVER", "Rows", "accepted"]

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

KINDS = tuple(FaultKind)
NEVER = -1
"""Number of a decision that does not exist."""


def accepted(kind: FaultKind, layer: int) -> frozenset[tuple[int, int]]:
    """Pairs (target, index into `ACTIONS`) that cure a fault; targets are nodes, or `WHOLE_RUN`."""
    return frozenset(
        (place if place == WHOLE_RUN else 2 * place, ACTIONS.index(cure))
        for place, cure in cures(kind, layer)
    )


@dataclass(frozen=True, eq=False)
class Rows:
    """R runs of T decisions each; the same runs in the same order for every cohort."""

    seed: Ints
    """[R]: number of the evaluation seed."""
    host: Ints
    """[R]: number of the run within its seed."""
    data: npt.NDArray[np.str_]
    """[R]: name of the data set."""
    fault: Ints
    """[R]: index into `FaultKind`."""
    layer: Ints
    """[R]: the faulty linear layer, -1 for the run as a whole."""
    struck: Ints
    """[R]: first decision after the fault had happened; `NEVER` in healthy runs."""
    curable: Bools
    """[R]: whether the oracle ever finds its cure legal in the run left alone (*labelled*)."""
    objective: Floats
    """[R]: J, the sum of the rewards."""
    accuracy: Floats
    """[R]: held-out accuracy at the end."""
    twin_accuracy: Floats
    """[R]: the same, of the twin that was left alone."""
    step: Ints
    """[R, T]: optimiser steps of the run before each decision."""
    acted: Bools
    """[R, T]: whether something was done."""
    proposed: Bools
    """[R, T]: whether it would have been, if uncertainty had not held it back."""
    target: Ints
    """[R, T]: where; a node or `WHOLE_RUN`."""
    type: Ints
    """[R, T]: what; index into `ACTIONS`."""
    due: Bools
    """[R, T]: whether the oracle would act at this moment of this course of the run."""
    probability: Floats
    """[R, T]: calibrated probability that an adaptation helps; NaN where the cohort has none."""
    confidence: Floats
    """[R, T]."""
    uncertainty: Floats
    """[R, T]."""

    @classmethod
    def concatenate(cls, parts: Sequence["Rows"]) -> "Rows":
        """The runs of several parts, in order."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})

    def __len__(self) -> int:
        return len(self.seed)

    @property
    def decisions(self) -> int:
        """T."""
        return int(self.acted.shape[1])

    @property
    def faulty(self) -> Bools:
        """[R]."""
        return np.not_equal(self.fault, KINDS.index(FaultKind.HEALTHY))

    @property
    def adapted(self) -> Bools:
        """[R]: whether anything was ever done."""
        adapted: Bools = self.acted.max(axis=1)
        return adapted

    @property
    def first(self) -> Ints:
        """[R]: the decision of the first action, or `NEVER`."""
        return np.where(self.adapted, self.acted.argmax(axis=1), NEVER)

    @property
    def delay(self) -> Ints:
        """[R]: optimiser steps from the first decision after the fault to the first action.

        It means something only where there are both.
        """
        runs = np.arange(len(self))
        delay: Ints = self.step[runs, self.first] - self.step[runs, self.struck]
        return delay

    @property
    def open(self) -> Bools:
        """[R, T]: decisions up to the first action: those of a run that is still the twin's."""
        return np.equal(np.cumsum(self.acted, axis=1), self.acted)

    @property
    def fits(self) -> Bools:
        """[R, T]: whether target and type are a cure of the fault, and the fault has happened."""
        fits = np.zeros(self.acted.shape, bool)
        for run, (fault, layer) in enumerate(zip(self.fault, self.layer, strict=True)):
            for target, kind in accepted(KINDS[fault], int(layer)):
                fits[run] |= (self.target[run] == target) & (self.type[run] == kind)
        happened = np.arange(self.decisions) >= self.struck[:, None]
        return fits & happened & self.faulty[:, None]

    @property
    def right(self) -> Bools:
        """[R]: whether the first action was one that cures."""
        right: Bools = (self.fits & self.acted & self.open).max(axis=1)
        return right

    def records(self, cohort: str) -> Iterator[dict[str, Any]]:
        """One JSON object for each run; what there is none of is `None`."""
        first, right = self.first, self.right
        for run in range(len(self)):
            when = int(first[run])
            yield {
                "cohort": cohort,
                "seed": int(self.seed[run]),
                "host": int(self.host[run]),
                "data": str(self.data[run]),
                "fault": KINDS[self.fault[run]].value,
                "layer": int(self.layer[run]),
                "struck": int(self.struck[run]),
                "curable": bool(self.curable[run]),
                "objective": float(self.objective[run]),
                "accuracy": float(self.accuracy[run]),
                "twin_accuracy": float(self.twin_accuracy[run]),
                "right": bool(right[run]),
                "actions": [
                    [int(t), int(self.target[run, t]), ACTIONS[self.type[run, t]].value]
                    for t in np.flatnonzero(self.acted[run])
                ],
                "confidence": None if when == NEVER else _number(self.confidence[run, when]),
                "uncertainty": None if when == NEVER else _number(self.uncertainty[run, when]),
                "probability": [_number(value) for value in self.probability[run]],
                "due": self.due[run].astype(int).tolist(),
            }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
