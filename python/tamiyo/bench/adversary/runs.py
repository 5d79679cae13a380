"""One run of a subject: untouched, attacked and governed, or attacked and left alone."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any, Literal

import torch
from torch import Tensor

from tamiyo.bench.adversary.catalogue import Adaptation, adaptation
from tamiyo.bench.adversary.subjects import STEPS, Subject, subject
from tamiyo.contracts import Outcome, Topic
from tamiyo.host import HostSession, TopologyRecorder, TrainingRun
from tamiyo.host.actions import ACTIONS, Context
from tamiyo.host.executor import Executor
from tamiyo.host.governor import Governor
from tamiyo.oona import connect

__all__ = ["Arm", "Case", "Record", "run"]

Arm = Literal["twin", "governed", "alone"]
RUN = "attacked"
EVALUATE_EVERY = 50
LAST_EVALUATIONS = range(STEPS - 40, STEPS + 1, 10)
"""Steps whose held-out losses are averaged to the final one."""
GO_ON = 20
"""Steps after a rollback, in which nothing may raise."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is run. The same case always gives the same run."""

    arm: Arm
    subject: str
    seed: int
    adaptation: str = ""
    """Empty: nothing is done to it."""
    at: int = 0
    """Step after which the decision is sent."""

    @property
    def key(self) -> str:
        """Identifies it in a file of records."""
        return "|".join(map(str, (self.arm, self.subject, self.seed, self.adaptation, self.at)))


@dataclass(slots=True)
class Record:
    """What a run showed.

    Attributes:
        case: What was run.
        final: Mean held-out loss over the last evaluations; NaN if the run was ended before.
        final_train: Median training loss of the last 50 steps.
        outcome: What became of the decision; empty without one.
        reason: Why.
        identical: After a rollback: whether weights, buffers, optimiser state and options have the
            very bits that they had right before the adaptation, by hashes of this file's own.
        verified: After a rollback: the host's own comparison.
        watched: Steps from applying to the verdict.
        raised: Exceptions that reached the training loop.
        faults: Errors inside the host.
        alarms: Steps with an alarm up.
        seconds: Wall time.
    """

    case: Case
    final: float = math.nan
    final_train: float = math.nan
    outcome: str = ""
    reason: str = ""
    identical: bool | None = None
    verified: bool | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    watched: int = 0
    raised: int = 0
    faults: int = 0
    alarms: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """That of the case."""
        return self.case.key

    def to_line(self) -> str:
        """JSON on a line of its own."""
        return f"{json.dumps(self.as_json())}\n"

    @classmethod
    def from_line(cls, line: str) -> "Record":
        """The inverse of `to_line`."""
        return cls.from_json(json.loads(line))

    def as_json(self) -> dict[str, Any]:
        """Plain values, the case's among them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Record":
        """The inverse of `as_json`."""
        return cls(**{**values, "case": Case(**values["case"])})


class Training:
    """A training loop as a user would write it."""

    def __init__(self, kind: Subject, seed: int) -> None:
        torch.manual_seed(seed)
        self.kind = kind
        self.model = kind.make_model()
        self.optimizer = kind.make_optimizer(self.model.parameters())
        self.scheduler = kind.make_scheduler(self.optimizer) if kind.make_scheduler else None
        self._batches = kind.batches(seed)
        self.losses: list[float] = []
        self._evaluations: list[float] = []

    def step(self) -> Tensor:
        """One optimiser step; its loss."""
        inputs, targets = next(self._batches)
        self.optimizer.zero_grad()
        loss = self.kind.data().loss(self.model(inputs), targets)
        loss.backward()
        if self.kind.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.kind.clip)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        self.losses.append(loss.item())
        if len(self.losses) in LAST_EVALUATIONS:
            self._evaluations.append(self.kind.held_out_loss(self.model))
        return loss

    def describe(self, record: Record) -> None:
        """Write down how it ended. A loss that is not finite counts as infinite."""
        done = len(self.losses) == STEPS
        values = [math.inf if math.isnan(loss) else loss for loss in self._evaluations]
        if done:
            record.final = fmean(values)
        elif not math.isfinite(self.losses[-1]):
            record.final = math.inf
        record.final_train = median(
            math.inf if math.isnan(loss) else loss for loss in self.losses[-EVALUATE_EVERY:]
        )

    def fingerprint(self) -> str:
        """Hash over the bits of the weights, the buffers and the optimiser's state and options."""
        digest = hashlib.sha256()
        _hash(digest.update, self.model.state_dict())
        _hash(digest.update, self.optimizer.state_dict())
        return digest.hexdigest()


def run(case: Case, *, to_the_end: bool = False) -> Record:
    """Run a case.

    Args:
        case: The case.
        to_the_end: Whether a governed run goes on to its end after a rollback.
    """
    started = time.perf_counter()
    record = Record(case)
    with torch.random.fork_rng(devices=[]):
        training = Training(subject(case.subject), case.seed)
        what = adaptation(case.adaptation) if case.adaptation else None
        if case.arm == "alone" and what is not None:
            _leave_alone(training, case, what, record)
        else:
            _govern(training, case, what, record, to_the_end)
        training.describe(record)
    record.seconds = time.perf_counter() - started
    return record


def _govern(
    training: Training, case: Case, what: Adaptation | None, record: Record, to_the_end: bool
) -> None:
    client = connect()
    session = HostSession(
        training.model,
        training.optimizer,
        client,
        run=RUN,
        snapshot_budget=1.0,  # so that the last good snapshot does not depend on the clock
        mode="autonomous",
        scheduler=training.scheduler,
        actions=ACTIONS if what is None else what.actions(case.seed),
    )
    before, ended = "", STEPS
    for step in range(1, STEPS + 1):
        try:
            loss = training.step()
            if step == case.at + 1 and what is not None:
                before = training.fingerprint()
            session.step(loss=loss)
            if step % EVALUATE_EVERY == 0:
                session.report(val_loss=training.kind.held_out_loss(training.model))
        except Exception:
            record.raised += 1
            break
        record.alarms += session._governor.alarm is not None
        if step == case.at and what is not None and session.topology is not None:
            decision = what.decision(session.topology, step, case.seed)
            client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
        if not record.outcome and _note(record, session, training, before):
            ended = min(STEPS, step + GO_ON) if not to_the_end else STEPS
        if step == ended:
            break
    session.remove()
    if not record.outcome:
        _note(record, session, training, before)
    record.faults = sum(session.stats().errors.values())


def _note(record: Record, session: HostSession, training: Training, before: str) -> bool:
    """Write down what became of the decision, once it is final.

    Returns:
        Whether there is nothing more to see, because the adaptation is not in place.
    """
    result = session.history[-1][1] if session.history else None
    if result is None or result.outcome is Outcome.APPLIED:
        return False
    record.outcome, record.reason = str(result.outcome), result.reason
    record.verified, record.watched = result.verified, result.step - record.case.at - 1
    record.loss_before, record.loss_after = result.loss_before, result.loss_after
    if result.outcome is Outcome.ROLLED_BACK:
        record.identical = training.fingerprint() == before
    return result.outcome is not Outcome.KEPT


def _leave_alone(training: Training, case: Case, what: Adaptation, record: Record) -> None:
    """The same adaptation at the same step, without a governor."""
    recorder = TopologyRecorder(training.model)
    recorder.attach()
    run = TrainingRun(training.model, training.optimizer, training.scheduler)
    governor = Governor(run, snapshot_share=1.0)
    executor: Executor | None = None
    for step in range(1, STEPS + 1):
        training.step()
        governor.observe_loss(step, training.losses[-1])
        governor.consider_snapshot(step)
        if executor is None and recorder.complete:
            recorder.detach()
            context = Context(run, recorder.layers())
            executor = Executor(context, governor, what.actions(case.seed))
        if step == case.at:
            decision = what.decision(recorder.topology(RUN), step, case.seed)
        if step == case.at + 1 and executor is not None:
            result = executor.apply(decision, step)
            record.outcome, record.reason = str(result.outcome), result.reason
            governor.trial = None
            if result.outcome is not Outcome.APPLIED:
                return
        if not math.isfinite(training.losses[-1]):
            break


def _hash(update: Callable[[bytes], object], value: Any) -> None:
    if isinstance(value, Tensor):
        update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key, item in value.items():
            update(repr(key).encode())
            _hash(update, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _hash(update, item)
    else:
        update(repr(value).encode())
