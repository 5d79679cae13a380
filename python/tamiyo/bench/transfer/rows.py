"""What was seen of one run, as a line of JSON; all figures follow from these lines alone."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from tamiyo.bench.row_file import read_lines
from tamiyo.contracts import AdaptationDecision, AdaptationResult, ModelTopology, Outcome

__all__ = ["Act", "Row", "read_rows"]

_DONE = frozenset((Outcome.APPLIED, Outcome.KEPT, Outcome.ROLLED_BACK, Outcome.FAILED))


@dataclass(frozen=True, slots=True)
class Act:
    """One decision, and what became of it.

    Attributes:
        step: Optimiser step of the run at which it was made.
        adaptation: What was decided.
        target: Names of the layers; empty is the model as a whole.
        parameters: Of the adaptation.
        by: Name of the policy that decided.
        confidence: Its own.
        reason: Its own.
        outcome: What became of it.
        answer: Why.
    """

    step: int
    adaptation: str
    target: tuple[str, ...]
    parameters: dict[str, Any]
    by: str
    confidence: float
    reason: str
    outcome: str
    answer: str

    @classmethod
    def of(
        cls,
        decision: AdaptationDecision,
        result: AdaptationResult,
        topology: ModelTopology | None,
        *,
        attached: int = 0,
        **more: Any,
    ) -> Self:
        """What a control tells of a decision.

        Args:
            decision: The decision.
            result: The last that was heard of it.
            topology: Of the model when it was made; a decision about layers needs one.
            attached: Optimiser steps of the run before the control was attached.
            more: Fields that a subclass has besides.
        """
        nodes = () if topology is None else topology.nodes
        return cls(
            step=attached + decision.issued_at_step,
            adaptation=str(decision.adaptation),
            target=tuple(nodes[layer].name for layer in decision.target),
            parameters=dict(decision.parameters),
            by=decision.policy,
            confidence=decision.confidence,
            reason=decision.reason,
            outcome=str(result.outcome),
            answer=result.reason,
            **more,
        )

    @property
    def done(self) -> bool:
        """Whether the model was changed, for good or for a while."""
        return self.outcome in _DONE

    @property
    def kept(self) -> bool:
        """Whether the change stayed."""
        return self.outcome == Outcome.KEPT


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        number: Of the host, its way of being watched and its random seed.
        fault: Name of the fault, or `healthy`.
        steps: Optimiser steps.
        policy: Who decides, as on the command line; `none` is the untouched run.
        version: What identifies the policy.
        host: What was trained, and how.
        watching: How it was watched.
        strike: Optimiser steps after which the fault struck; `None` in a healthy run.
        place: The faulty layer; `None` where it is the run as a whole.
        cures: Pairs of an adaptation and the layer that it belongs to, `None` for the whole model.
        readings: How often layers were measured; `None` with nobody beside it.
        acts: What was decided.
        accuracy: Held-out accuracy at the end.
        loss: Held-out loss at the end; `None` where it is not finite.
        checksum: Of weights, optimiser state and learning rates at the end, every bit.
        untouched: The accuracy that the same run has with nobody beside it.
        clean: The accuracy of its twin without the fault, with nobody beside it.
        same_bits: Whether it ended in the very state of the untouched run.
        problems: Exceptions that reached the training loop, and warnings and errors that were
            logged.
        seconds: Wall time.
    """

    number: int
    fault: str
    steps: int
    policy: str
    version: str
    host: dict[str, Any]
    watching: dict[str, Any]
    strike: int | None
    place: str | None
    cures: tuple[tuple[str, str | None], ...]
    acts: tuple[Act, ...]
    accuracy: float
    loss: float | None
    checksum: str
    untouched: float
    clean: float
    same_bits: bool
    readings: int | None = None
    problems: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def key(self) -> tuple[int, str, int, str, str]:
        """Identifies it in a file."""
        return self.number, self.fault, self.steps, self.policy, self.version

    @property
    def first(self) -> Act | None:
        """The first decision that changed the model."""
        return next((act for act in self.acts if act.done), None)

    @property
    def answered(self) -> bool:
        """Whether something was done, and nothing before the fault struck."""
        return self.first is not None and self.strike is not None and self.first.step > self.strike

    @property
    def right(self) -> bool:
        """Whether the first thing done is a cure: of its type, and where it belongs."""
        first = self.first
        if first is None or not self.answered:
            return False
        place = first.target[0] if len(first.target) == 1 else None
        return len(first.target) < 2 and (first.adaptation, place) in self.cures

    def to_line(self) -> str:
        """A line of JSON."""
        return json.dumps(asdict(self), allow_nan=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Row":
        """The inverse of `to_line`."""
        values = json.loads(line)
        acts = tuple(Act(**act | {"target": tuple(act["target"])}) for act in values.pop("acts"))
        cures = tuple((adaptation, place) for adaptation, place in values.pop("cures"))
        return cls(**values | {"problems": tuple(values["problems"])}, acts=acts, cures=cures)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, nothing if there is none; a line that was cut off does not count."""
    return read_lines(path, Row.from_line)
