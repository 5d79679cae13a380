"""What was seen of one run, as a line of JSON; all figures follow from these lines alone."""

import json
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from tamiyo.bench.faults.fault import HEALTHY
from tamiyo.bench.row_file import read_lines
from tamiyo.bench.transfer.rows import Act
from tamiyo.contracts import Outcome

__all__ = ["Evaluation", "FaultAct", "FaultRow", "read_rows"]


@dataclass(frozen=True, slots=True)
class FaultAct(Act):
    """One decision or one intervention of a baseline, and what became of it.

    Attributes:
        verified: After a rollback whether the state was compared and found equal.
    """

    verified: bool | None = None

    @property
    def rolled_back(self) -> bool:
        """Whether it was taken back."""
        return self.outcome == Outcome.ROLLED_BACK


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Of held-out data in mid-run: after how many optimiser steps, and what came of it."""

    step: int
    accuracy: float
    loss: float | None
    """`None` where it is not finite."""


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One run.

    Attributes:
        fault: Name of the fault, or `F0`.
        architecture: Its name.
        data: Name of the data set.
        seed: Of first weights and the order of the data.
        policy: Name of who was beside it.
        version: What identifies that one.
        split: Of its cell.
        settings: What it was built from.
        onset: Optimiser steps that were done before the fault struck.
        culprits: Names of the faulty layers and of the activations that follow them; none where it
            is the run as a whole.
        cures: Pairs of an adaptation and whether it is for the whole run; else for culprits.
        evaluations: Held-out accuracy over the run.
        acts: What was decided or done.
        accuracy: Held-out accuracy at the end, see `tamiyo.bench.faults.live`.
        checksum: Of weights, optimiser state and learning rates at the end, every bit.
        passes: Forward and backward passes that were made besides those of the training.
        problems: Exceptions that reached the loop, and warnings and errors that were logged.
        cpu_seconds: Processor time of the run.
    """

    fault: str
    architecture: str
    data: str
    seed: int
    policy: str
    version: str
    split: str
    settings: dict[str, Any]
    onset: int
    culprits: tuple[str, ...]
    cures: tuple[tuple[str, bool], ...]
    evaluations: tuple[Evaluation, ...]
    acts: tuple[FaultAct, ...]
    accuracy: float
    checksum: str
    passes: int = 0
    problems: tuple[str, ...] = ()
    cpu_seconds: float = field(default=0.0, compare=False)

    @property
    def key(self) -> tuple[str, str, str, int, str, str]:
        """Identifies it in a file."""
        return self.fault, self.architecture, self.data, self.seed, self.policy, self.version

    @property
    def cell(self) -> str:
        """Fault, architecture and data in one text."""
        return f"{self.fault}|{self.architecture}|{self.data}"

    @property
    def kind(self) -> str:
        """Kind of the fault: `F1` to `F13`, or `F0`."""
        return self.fault.split(":")[0]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.fault == HEALTHY

    @property
    def first(self) -> FaultAct | None:
        """The first thing that changed the model or its training."""
        return next((act for act in self.acts if act.done), None)

    @property
    def detected(self) -> bool:
        """Whether something was done, and nothing before the fault struck."""
        return self.first is not None and not self.healthy and self.first.step > self.onset

    @property
    def right_place(self) -> bool:
        """Whether the first thing done was done to culprits alone."""
        return self.detected and self.first is not None and self._hits(self.first)

    @property
    def right_type(self) -> bool:
        """Whether the first thing done is of a type that cures."""
        cures = {adaptation for adaptation, _ in self.cures}
        return self.detected and self.first is not None and self.first.adaptation in cures

    @property
    def right(self) -> bool:
        """Whether the first thing done is a cure: of its type, and where it belongs."""
        first = self.first
        if first is None or not self.detected:
            return False
        return any(
            first.adaptation == adaptation and (not first.target if whole else self._hits(first))
            for adaptation, whole in self.cures
        )

    def settled_at(self, goal: float) -> float:
        """Step of the evaluation from which on accuracy kept to a goal; infinite if it did not."""
        settled = inf
        for seen in reversed(self.evaluations):
            if seen.accuracy < goal:
                break
            settled = float(seen.step)
        return settled

    def to_line(self) -> str:
        """A line of JSON."""
        return json.dumps(asdict(self), allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "FaultRow":
        """The inverse of `to_line`."""
        values = json.loads(line)
        lists = {
            "culprits": tuple(values["culprits"]),
            "cures": tuple((str(adaptation), bool(whole)) for adaptation, whole in values["cures"]),
            "evaluations": tuple(Evaluation(**seen) for seen in values["evaluations"]),
            "acts": tuple(
                FaultAct(**act | {"target": tuple(act["target"])}) for act in values["acts"]
            ),
            "problems": tuple(values["problems"]),
        }
        return cls(**values | lists)

    def _hits(self, act: FaultAct) -> bool:
        return bool(act.target) and set(act.target) <= set(self.culprits)


def read_rows(path: Path) -> list[FaultRow]:
    """The rows of a file, nothing if there is none; a line that was cut off does not count."""
    return read_lines(path, FaultRow.from_line)
