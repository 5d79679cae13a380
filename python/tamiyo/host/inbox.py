"""Decisions as they arrive: validated, for this run, of the latest term, each once."""

from collections import Counter, OrderedDict

from tamiyo.contracts import AdaptationDecision, Topic, WireError
from tamiyo.oona import OonaClient

__all__ = ["DecisionInbox"]

REMEMBERED = 10_000
"""Ids of past decisions that are kept to recognise a repeated delivery."""
AT_ONCE = 16
"""Messages read per step, so that a flood cannot hold up the loop."""


class DecisionInbox:
    """Reads the decision stream without waiting. What is ignored is counted by reason."""

    def __init__(self, client: OonaClient, run: str) -> None:
        self._subscription = client.subscribe([Topic.DECISIONS])
        self._run = run
        self._known: OrderedDict[str, None] = OrderedDict()
        self._term = 0
        self.ignored: Counter[str] = Counter()

    @property
    def waiting(self) -> bool:
        """Whether `poll` would find a message."""
        return self._subscription.waiting > 0

    def poll(self) -> list[AdaptationDecision]:
        """New decisions, oldest first.

        Raises:
            BusClosedError: the bus is closed.
        """
        decisions: list[AdaptationDecision] = []
        for _ in range(min(self._subscription.waiting, AT_ONCE)):
            message = self._subscription.get_nowait()
            if message is None:
                break
            try:
                decision = AdaptationDecision.from_bytes(message.payload)
            except WireError:
                self.ignored["malformed"] += 1
                continue
            if self._accept(decision):
                decisions.append(decision)
        return decisions

    def close(self) -> None:
        """Take no more decisions."""
        self._subscription.close()

    def _accept(self, decision: AdaptationDecision) -> bool:
        if decision.run != self._run:
            self.ignored["other run"] += 1
        elif decision.term < self._term:
            self.ignored["older term"] += 1
        elif decision.decision_id in self._known:
            self.ignored["duplicate"] += 1
        else:
            self._term = decision.term
            self._known[decision.decision_id] = None
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return True
        return False
