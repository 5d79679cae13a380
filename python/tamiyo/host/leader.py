"""Ranks that hold the same weights apply the same adaptation at the same step, or none does.

Rank 0 leads: it alone talks to the controller, watches the loss and decides. It carries a change
out itself first, tells the others, and collects their votes. Where a rank objects, falls silent or
ends up with other bits, all of them take the change back before the next step.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

from tamiyo.contracts import AdaptationDecision, AdaptationResult, AdaptationType, Outcome
from tamiyo.host.actions import Action, Context
from tamiyo.host.checksums import run_checksum
from tamiyo.host.executor import Executor
from tamiyo.host.governor import Governor
from tamiyo.host.keeper import SnapshotKeeper
from tamiyo.host.orders import Ballot, Order, OrderKind, packed_activity, unpacked_activity
from tamiyo.host.rendezvous import Rendezvous
from tamiyo.host.results import describe, result_of
from tamiyo.host.upkeep import Upkeep

__all__ = ["Leader", "LeadingKeeper", "SharedExecutor"]

logger = logging.getLogger("tamiyo.host")

GRACE = 8
"""Steps after the first decision in which ranks may still be attaching."""


class Leader:
    """The leading rank's end: calls the ranks together and has them vote.

    Args:
        rendezvous: How ranks meet.
    """

    def __init__(self, rendezvous: Rendezvous) -> None:
        self._rendezvous = rendezvous
        self._wanted_since: int | None = None
        self.gathered = False
        """Whether all ranks are together now, between two steps."""
        self.trouble = ""
        """Why nothing can be done together any more; empty while it can."""
        self.complaint = ""
        """What another rank has reported to be wrong with it."""

    def gather(self, step: int) -> bool:
        """Whether all ranks are together after `step` steps; if so, `adjourn` afterwards."""
        if not self.trouble:
            self.complaint = self.complaint or self._rendezvous.complaint(step)
            self.gathered = self._rendezvous.gather(step)
            if self._rendezvous.given_up:
                self.give_up("the ranks do not come together")
        return self.gathered

    def call(self, step: int) -> None:
        """Have the ranks come together soon."""
        if self.trouble or self._rendezvous.called:
            return
        if not (absent := self._rendezvous.absent):
            self._rendezvous.call(step)
        elif self._wanted_since is None:
            # All ranks begin at the same step, but not at the same moment.
            self._wanted_since = step
        elif step - self._wanted_since >= GRACE:
            ranks = ", ".join(map(str, absent))
            self.give_up(f"Tamiyo is not attached on rank {ranks}, or sees another model there")

    def adjourn(self) -> None:
        """Let all ranks go on."""
        if self.gathered:
            self.gathered = False
            self.tell(Order(OrderKind.ADJOURN, 0))

    def tell(self, order: Order) -> None:
        """Give an order that is not voted on."""
        self._rendezvous.say(order.to_bytes())

    def propose(self, order: Order, before: str, after: str) -> str:
        """Give an order that was carried out here; why it is not carried, empty if it is.

        Args:
            order: The order.
            before: Checksum of this rank's state before (`run_checksum`).
            after: And after.
        """
        self.tell(order)
        objections = []
        votes = self._rendezvous.votes()
        for rank, vote in zip(self._rendezvous.followers, votes, strict=True):
            if vote is None:
                objections.append(f"rank {rank} does not answer")
                continue
            ballot = Ballot.from_bytes(vote)
            if ballot.objection:
                objections.append(f"rank {rank}: {ballot.objection}")
            elif (ballot.before, ballot.after) != (before, after):
                objections.append(f"rank {rank} holds other weights")
        if not self._rendezvous.decide(not objections) and not objections:
            objections.append("a rank has given up waiting")
        return "; ".join(objections)

    def give_up(self, reason: str) -> None:
        """From now on only observe."""
        if not self.trouble:
            self.trouble = reason
            logger.warning("tamiyo: the model is only observed from now on: %s", reason)
            self._rendezvous.cancel()


class SharedExecutor(Executor):
    """Changes the run on all ranks together; while they are apart it changes nothing.

    Args:
        context: See `Executor`.
        governor: See `Executor`.
        actions: See `Executor`.
        upkeep: Follows changes of structure.
        leader: Calls the other ranks; `None` where there are none.
    """

    def __init__(
        self,
        context: Context,
        governor: Governor,
        actions: Mapping[AdaptationType, Action],
        upkeep: Upkeep,
        leader: Leader | None,
    ) -> None:
        super().__init__(context, governor, actions)
        self._upkeep = upkeep
        self._leader = leader

    def apply(self, decision: AdaptationDecision, step: int) -> AdaptationResult:
        """See `Executor.apply`; where a rank cannot follow, the change is taken back on all."""
        leader = self._leader
        if leader is not None and not leader.gathered:
            return result_of(decision, step, Outcome.REFUSED, "the ranks are not together")
        order = self._order(decision, step)
        before = "" if leader is None else run_checksum(self.context.run)
        result = super().apply(decision, step)
        if result.outcome is not Outcome.APPLIED:
            return result
        try:
            objection = self._upkeep.objection()
            if not objection:
                self._upkeep.settle()
            if not objection and leader is not None:
                objection = leader.propose(order, before, run_checksum(self.context.run))
        except Exception as error:
            objection = describe(error)
            if leader is not None:
                leader.give_up(objection)
        if not objection:
            return result
        undone = super().conclude(step, Outcome.ROLLED_BACK, objection)
        self._upkeep.settle()
        return result_of(decision, step, Outcome.REFUSED, undone.reason, verified=undone.verified)

    def conclude(self, step: int, outcome: Outcome, reason: str) -> AdaptationResult:
        """See `Executor.conclude`. An adaptation is never taken back on one rank alone."""
        leader = self._leader
        if leader is None:
            return super().conclude(step, outcome, reason)
        if not leader.gathered:
            if outcome is Outcome.ROLLED_BACK:
                outcome = Outcome.FAILED
                reason = f"{reason}; it stays, because the ranks cannot be reached"
            return super().conclude(step, outcome, reason)
        result = super().conclude(step, outcome, reason)
        order = Order(OrderKind.CONCLUDE, step, outcome=outcome, reason=reason)
        try:
            self._upkeep.settle()
            # Before a rollback ranks may differ, if a hook has failed on one of them.
            objection = leader.propose(order, "", run_checksum(self.context.run))
        except Exception as error:
            objection = describe(error)
        if not objection:
            return result
        leader.give_up(objection)
        return replace(result, outcome=Outcome.FAILED, reason=objection, verified=False)

    def _order(self, decision: AdaptationDecision, step: int) -> Order:
        """What the other ranks are told. This one goes by the same numbers as they do."""
        activity, good = self.context.activity, self.governor.keeper.good
        packed = packed_activity({i: activity[i] for i in decision.target if i in activity})
        activity.update(unpacked_activity(packed))
        return Order(
            OrderKind.APPLY,
            step,
            decision=decision.to_bytes(),
            activity=packed,
            good=good.step if good is not None else None,
        )


class LeadingKeeper(SnapshotKeeper):
    """Keeps snapshots that all ranks have taken at the same steps."""

    leader: Leader | None = None
    """Set once the ranks are known."""
    wanted = False
    """Whether the next snapshot is due when the ranks are together."""
    _untold: int | None = None
    """Step of a good snapshot that the other ranks still take for a candidate."""

    def consider(self, step: int, *, checks: int) -> None:
        """See `SnapshotKeeper.consider`; candidates are taken only while the ranks are together."""
        candidate = self._candidate
        if candidate is not None:
            good = self.good
            super().consider(step, checks=checks)
            if self.good is not None and self.good is not good:
                self._untold = self.good.step
        elif self.leader is None or not self.leader.gathered:
            self.wanted = self.budget.allows()
        else:
            self.wanted = False
            super().consider(step, checks=checks)
            if self._candidate is not None:
                self.leader.tell(Order(OrderKind.CAPTURE, step))

    def brief(self) -> None:
        """Tell the ranks, which have just come together, what has proved to be good."""
        if self._untold is not None and self.leader is not None:
            self.leader.tell(Order(OrderKind.PROMOTE, self._untold))
            self._untold = None

    def drop_candidate(self) -> None:
        """See `SnapshotKeeper.drop_candidate`."""
        self.wanted = False
        super().drop_candidate()
