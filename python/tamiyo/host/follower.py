"""A rank that does what the leading one tells it, and nothing of its own."""

from tamiyo.contracts import AdaptationDecision, AdaptationType, Outcome
from tamiyo.host.checksums import run_checksum
from tamiyo.host.executor import Executor
from tamiyo.host.keeper import SnapshotKeeper
from tamiyo.host.orders import Ballot, Order, OrderKind, unpacked_activity
from tamiyo.host.rendezvous import Rendezvous
from tamiyo.host.results import describe
from tamiyo.host.upkeep import Upkeep

__all__ = ["Follower", "FollowingKeeper"]


class FollowingKeeper(SnapshotKeeper):
    """Keeps snapshots at the steps at which the leader takes its own."""

    def take(self, step: int) -> None:
        """Take a candidate, if there is room for one."""
        self.drop_candidate()
        if self._has_room():
            self._candidate = self._take(step)

    def promote(self, step: int) -> None:
        """The candidate of that step has proved to be good."""
        candidate = self._candidate
        if candidate is not None and candidate.step == step:
            self._spare, self.good, self._candidate = self.good, candidate, None


class Follower:
    """Takes part in what the ranks do together.

    Args:
        rendezvous: How ranks meet.
        executor: Changes this rank's copy of the model.
        keeper: This rank's snapshots.
        upkeep: Follows changes of structure.
    """

    def __init__(
        self,
        rendezvous: Rendezvous,
        executor: Executor,
        keeper: FollowingKeeper,
        upkeep: Upkeep,
    ) -> None:
        self._rendezvous = rendezvous
        self._executor = executor
        self._keeper = keeper
        self._upkeep = upkeep
        self._complained = False

    def follow(self, step: int) -> None:
        """After `step` steps: join the others, if the leader has called."""
        if not self._rendezvous.attend(step):
            return
        while (word := self._rendezvous.hear()) is not None:
            order = Order.from_bytes(word)
            if order.kind is OrderKind.ADJOURN:
                return
            self._carry_out(order, step)
        raise RuntimeError("the leading rank has fallen silent")

    def complain(self, trouble: str) -> None:
        """Tell the leader, once, that this rank can no longer be relied on."""
        if not self._complained:
            self._complained = True
            self._rendezvous.complain(trouble)

    def _carry_out(self, order: Order, step: int) -> None:
        match order.kind:
            case OrderKind.APPLY:
                self._apply(order, step)
            case OrderKind.CONCLUDE:
                self._conclude(order, step)
            case OrderKind.CAPTURE:
                self._keeper.take(step)
            case OrderKind.PROMOTE:
                self._keeper.promote(order.step)

    def _apply(self, order: Order, step: int) -> None:
        executor = self._executor
        before = after = ""
        under_watch = executor.governor.trial
        try:
            before = run_checksum(executor.context.run)
            objection = self._attempt(order, step)
            after = run_checksum(executor.context.run)
        except Exception as error:
            objection = describe(error)
        applied = executor.governor.trial is not under_watch
        carried = False
        try:
            carried = self._rendezvous.vote(Ballot(objection, before, after).to_bytes())
        finally:
            # Without a store there is no agreement either.
            if applied and not carried:
                executor.conclude(step, Outcome.ROLLED_BACK, "not carried")
                self._upkeep.settle()

    def _attempt(self, order: Order, step: int) -> str:
        """Apply a decision; why it was not, empty if it was."""
        executor, good = self._executor, self._keeper.good
        if order.step != step:
            return f"it is at step {step}"
        if executor.governor.trial is not None:
            return "it still has an adaptation under watch"
        decision = AdaptationDecision.from_bytes(order.decision)
        if decision.adaptation is AdaptationType.RESTORE and (
            good is None or good.step != order.good
        ):
            return "it has no snapshot of the same step"
        executor.context.activity.clear()
        executor.context.activity.update(unpacked_activity(order.activity))
        result = executor.apply(decision, step)
        if result.outcome is not Outcome.APPLIED:
            return result.reason or str(result.outcome)
        if not (objection := self._upkeep.objection()):
            self._upkeep.settle()
        return objection

    def _conclude(self, order: Order, step: int) -> None:
        executor, outcome, after = self._executor, Outcome(order.outcome), ""
        try:
            result = executor.conclude(step, outcome, order.reason)
            self._upkeep.settle()
            objection = "" if result.outcome is outcome else result.reason
            after = run_checksum(executor.context.run)
        except Exception as error:
            objection = describe(error)
        self._rendezvous.vote(Ballot(objection, "", after).to_bytes())
