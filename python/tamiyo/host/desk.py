"""What becomes of each decision: advice, waiting, applied, on trial, kept or taken back."""

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from tamiyo.contracts import AdaptationDecision, AdaptationResult, AdaptationType, Outcome
from tamiyo.host.executor import Executor
from tamiyo.host.inbox import DecisionInbox
from tamiyo.host.results import result_of

__all__ = ["DecisionDesk", "Mode"]

Mode: TypeAlias = Literal["observe", "confirm", "autonomous"]

logger = logging.getLogger("tamiyo.host")

MOST_WAITING = 64
"""Decisions that may wait for a person or for the end of a pause; further ones are refused."""
MOST_REMEMBERED = 4096
"""Answered decisions that are kept to be shown."""


class DecisionDesk:
    """Takes decisions from the inbox to their final outcome. One is on trial at a time.

    Args:
        inbox: Where decisions arrive.
        publish: Takes each result.
    """

    def __init__(self, inbox: DecisionInbox, publish: Callable[[AdaptationResult], None]) -> None:
        self.inbox = inbox
        self.executor: Executor | None = None
        """Set once the layers are known."""
        self.history: OrderedDict[str, tuple[AdaptationDecision, AdaptationResult]] = OrderedDict()
        """By decision id, in the order of the first answer: the decision and its latest result."""
        self.advice: deque[AdaptationDecision] = deque(maxlen=256)
        self.outcomes: Counter[str] = Counter()
        self._publish = publish
        self._waiting: dict[str, AdaptationDecision] = {}
        self._approved: deque[AdaptationDecision] = deque()
        self._rejected: deque[AdaptationDecision] = deque()
        self._loss_given = True
        self._verdict: tuple[Outcome, str] | None = None
        """On the adaptation under watch."""

    @property
    def waiting(self) -> Sequence[AdaptationDecision]:
        """Decisions that need a yes or a no."""
        return tuple(self._waiting.values())

    @property
    def has_mail(self) -> bool:
        """Whether `receive` has anything to do."""
        return bool(self._waiting) or self.inbox.waiting

    @property
    def busy(self) -> bool:
        """Whether there is anything to apply or to answer."""
        return bool(self._approved or self._rejected)

    def note_loss(self, given: bool, mode: Mode) -> None:
        """Take note whether the training loop gives losses, by which alone effects are judged."""
        if mode == "autonomous" and self._loss_given and not given:
            logger.warning(
                "tamiyo: no loss was given to step(), so decisions wait for confirm() as in "
                "confirm mode"
            )
        self._loss_given = given

    def in_effect(self, mode: Mode) -> Mode:
        """The mode in effect where `mode` was asked for."""
        return "confirm" if mode == "autonomous" and not self._loss_given else mode

    def confirm(self, decision_id: str) -> bool:
        """Allow a waiting decision; may be called from any thread. False if none waits."""
        return self._release(decision_id, self._approved)

    def reject(self, decision_id: str) -> bool:
        """Refuse a waiting decision; may be called from any thread. False if none waits."""
        return self._release(decision_id, self._rejected)

    def receive(self, step: int, mode: Mode) -> None:
        """Take what has arrived, and let go of what has waited too long."""
        for decision in self.inbox.poll():
            if mode == "observe":
                self.advice.append(decision)
            elif len(self._waiting) + len(self._approved) >= MOST_WAITING:
                self._answer(decision, step, Outcome.REFUSED, "too many decisions wait already")
            elif mode == "confirm":
                self._waiting[decision.decision_id] = decision
            else:
                self._approved.append(decision)
        if self._waiting:
            # A copy, because another thread may confirm or reject meanwhile.
            overdue = [d for d in tuple(self._waiting.values()) if step > d.expires_at_step]
            for decision in overdue:
                if self._waiting.pop(decision.decision_id, None) is not None:
                    self._answer(decision, step, Outcome.EXPIRED, "nobody confirmed it in time")

    def apply_approved(self, step: int) -> None:
        """Apply what is allowed, after `step` optimiser steps, and answer what is not."""
        while self._rejected:
            self._answer(self._rejected.popleft(), step, Outcome.REFUSED, "rejected by a person")
        while self._approved:
            decision = self._approved.popleft()
            if step > decision.expires_at_step:
                reason = f"expired at step {decision.expires_at_step}"
                self._answer(decision, step, Outcome.EXPIRED, reason)
            else:
                self._apply(decision, step)

    def refuse_all(self, step: int, reason: str) -> None:
        """Answer everything that is approved with a refusal."""
        while self._approved:
            self._answer(self._approved.popleft(), step, Outcome.REFUSED, reason)

    def ripe(self, step: int, failed: str = "") -> bool:
        """Whether the outcome of the trial can be told; if so, it stands until `judge`.

        Args:
            step: Optimiser steps done.
            failed: Parts of the host without which nothing can be judged or was really applied.
        """
        if self.executor is None or self.executor.governor.trial is None:
            return False
        if failed:
            reason = f"{failed} failed, so its effect cannot be judged"
            self._verdict = self.executor.governor.hurt(reason)
        elif self._verdict is None:
            self._verdict = self.executor.verdict(step)
        return self._verdict is not None

    def judge(self, step: int, failed: str = "") -> bool:
        """End the trial if its outcome can be told (see `ripe`); returns whether it did."""
        if self.executor is None or not self.ripe(step, failed) or self._verdict is None:
            return False
        self._conclude(self.executor, step, *self._verdict)
        return True

    def end(self, step: int) -> None:
        """Judge a trial that still runs by what was seen so far."""
        if self.executor is not None and self.executor.governor.trial is not None:
            verdict = self.executor.governor.verdict(step, last=True)
            self._conclude(self.executor, step, *(verdict or (Outcome.KEPT, "the session ended")))

    def _apply(self, decision: AdaptationDecision, step: int) -> None:
        executor = self.executor
        if executor is None:
            self._answer(decision, step, Outcome.REFUSED, "the model is not traced yet")
            return
        trial = executor.governor.trial
        if trial is not None:
            objection = f"{trial.decision.decision_id} is still under watch"
            if decision.adaptation is AdaptationType.RESTORE:
                objection = executor.objection(decision)
            if objection:
                self._answer(decision, step, Outcome.REFUSED, objection)
                return
            reason = f"pre-empted by {decision.decision_id}"
            self._conclude(executor, step, *executor.governor.hurt(reason))
        self._note(decision, executor.apply(decision, step))

    def _conclude(self, executor: Executor, step: int, outcome: Outcome, reason: str) -> None:
        trial, self._verdict = executor.governor.trial, None
        if trial is not None:
            self._note(trial.decision, executor.conclude(step, outcome, reason))

    def _answer(
        self, decision: AdaptationDecision, step: int, outcome: Outcome, reason: str
    ) -> None:
        self._note(decision, result_of(decision, step, outcome, reason))

    def _note(self, decision: AdaptationDecision, result: AdaptationResult) -> None:
        self.outcomes[result.outcome] += 1
        self.history[decision.decision_id] = decision, result
        if len(self.history) > MOST_REMEMBERED:
            self.history.popitem(last=False)
        self._publish(result)

    def _release(self, decision_id: str, queue: deque[AdaptationDecision]) -> bool:
        decision = self._waiting.pop(decision_id, None)
        if decision is not None:
            queue.append(decision)
        return decision is not None
