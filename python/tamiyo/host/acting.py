"""What happens between two optimiser steps: applying, judging and keeping snapshots."""

from collections.abc import Callable

from torch.nn.parallel import DistributedDataParallel

from tamiyo.contracts import AdaptationType
from tamiyo.host.actions import HOOKS
from tamiyo.host.compiled import EagerSteps, OptimizerHearing
from tamiyo.host.desk import DecisionDesk
from tamiyo.host.distributed import alone_may_run_eagerly
from tamiyo.host.executor import Executor
from tamiyo.host.faults import Faults
from tamiyo.host.governor import Governor
from tamiyo.host.keeper import SnapshotKeeper
from tamiyo.host.leader import LeadingKeeper
from tamiyo.host.ranks import Ranks
from tamiyo.host.training import TrainingRun, unwrap
from tamiyo.host.upkeep import Upkeep

__all__ = ["Acting"]

PARTS = frozenset(("governor", "decisions", "executor", "ranks", HOOKS))
"""Parts of the host without which nothing may be applied."""
HOOKED = frozenset(
    (
        AdaptationType.ADD_SEED,
        AdaptationType.CLIP_GRADIENTS,
        AdaptationType.SCALE_LEARNING_RATE,
    )
)
"""Adaptations that work through the optimiser's hooks."""


class Acting:
    """Carries out what the desk has approved, alone or together with the other ranks.

    Args:
        run: The run.
        desk: Where decisions are.
        governor: Who judges.
        faults: Where errors go.
        eager: Knows whether the model is compiled.
        announce: Called when the model may have been restructured.
    """

    def __init__(
        self,
        run: TrainingRun,
        *,
        desk: DecisionDesk,
        governor: Governor,
        faults: Faults,
        eager: EagerSteps,
        announce: Callable[[], None],
    ) -> None:
        self.paused = False
        """Whether approved decisions are held back."""
        self._desk = desk
        self._governor = governor
        self._faults = faults
        self._eager = eager
        self._announce = announce
        self._upkeep = Upkeep(unwrap(run.model), eager)
        self._ranks = Ranks(run, self._upkeep)
        self._hearing = OptimizerHearing(run.optimizer, eager)

    @property
    def follows(self) -> bool:
        """Whether another process decides and speaks for this one."""
        return self._ranks.follows

    @property
    def undecided(self) -> bool:
        """Whether there are other ranks and `join` has not been called."""
        return not self._ranks.joined

    @property
    def at_rest(self) -> bool:
        """Whether the next steps are of no concern: no seed grows, and no other rank takes part."""
        return self._ranks.leader is None and not self._upkeep.growing

    def keeper(self, *, share: float, memory: int) -> SnapshotKeeper:
        """Keeps snapshots at the same steps as the other ranks do."""
        return self._ranks.keeper(share=share, memory=memory)

    def join(
        self,
        executor: Executor,
        wrapper: DistributedDataParallel | None,
        *,
        wants_to_act: bool,
    ) -> bool:
        """Take part in what the ranks do together.

        Args:
            executor: What changes this process's model.
            wrapper: The data-parallel wrapper through which the model is trained, if any.
            wants_to_act: Whether there is anything to be done but observe.

        Returns:
            Whether anything can and is to be done.
        """
        if self._ranks.others:
            self._eager.allowed = wrapper is not None and alone_may_run_eagerly(wrapper)
        shared = self._ranks.join(executor, wrapper, wants_to_act=wants_to_act)
        self._desk.executor = executor if shared is None else shared
        return shared is not None

    def failed(self) -> str:
        """What has failed that acting depends on; empty if nothing."""
        parts = sorted(PARTS & self._faults.disabled)
        if (leader := self._ranks.leader) is not None:
            parts += [trouble for trouble in (leader.trouble, leader.complaint) if trouble]
        return ", ".join(parts)

    def restructured(self) -> None:
        """The model was given another structure from outside, between two steps.

        Raises:
            RuntimeError: the data-parallel wrapper cannot follow.
        """
        self._ranks.find_wrapper()
        if objection := self._upkeep.objection():
            raise RuntimeError(f"{objection}: load the state before wrapping the model")
        self._upkeep.settle()

    def act(self, step: int) -> None:
        """Do everything that is due after `step` optimiser steps."""
        if not self._hearing.known:
            self._faults.attempt("executor", self._listen)
        if self._ranks.follows:
            self._faults.attempt("ranks", self._ranks.follow, step, self.failed())
        elif (leader := self._ranks.leader) is None or leader.trouble:
            self._act(step)
        else:
            self._faults.attempt("ranks", self._act_together, step)
            if "ranks" in self._faults.disabled:
                self._faults.attempt("executor", leader.give_up, "acting together failed")
        if (executor := self._desk.executor) is not None:
            self._faults.attempt("executor", self._upkeep.tend, executor.context.seed_bed)

    def apply_pending(self, step: int) -> None:
        """Apply what is approved, unless other ranks would have to take part now."""
        if self.paused or not self._desk.busy:
            return
        if failed := self.failed():
            reason = f"not safe: {failed} failed earlier in this session"
            self._desk.refuse_all(step, reason)
        elif self._ranks.leader is None or self._ranks.leader.gathered:
            self._faults.attempt("executor", self._desk.apply_approved, step)
            self._follow_changes()

    def end(self, step: int) -> None:
        """The session ends: whatever is under watch is judged by what was seen so far."""
        self._hearing.stop()
        self._faults.attempt("ranks", self._ranks.leave)
        self._faults.attempt("executor", self._desk.end, step)
        if (executor := self._desk.executor) is not None:
            executor.context.remove_hooks()
            self._faults.attempt("seeds", executor.context.seed_bed.settle)
        self._faults.attempt("executor", self._upkeep.settle)

    def _listen(self) -> None:
        self._hearing.listen()
        if self._hearing.deaf and (executor := self._desk.executor) is not None:
            executor.actions = {k: a for k, a in executor.actions.items() if k not in HOOKED}

    def _act_together(self, step: int) -> None:
        leader = self._ranks.leader
        if leader is None:
            return
        keeper = self._governor.keeper
        if leader.gather(step):
            try:
                if isinstance(keeper, LeadingKeeper):
                    keeper.brief()
                # Ranks meet rarely, so that what waits for the end of a watch is not to wait again.
                self._judge(step)
                self._act(step)
            finally:
                leader.adjourn()
            return
        self._consider_snapshot(step)
        if failed := self.failed():
            self.apply_pending(step)
        approved = self._desk.busy and not self.paused
        snapshot = isinstance(keeper, LeadingKeeper) and keeper.wanted
        if approved or snapshot or self._desk.ripe(step, failed):
            leader.call(step)

    def _act(self, step: int) -> None:
        self.apply_pending(step)
        self._judge(step)
        self._consider_snapshot(step)

    def _judge(self, step: int) -> None:
        if self._governor.trial is not None:
            self._faults.attempt("executor", self._conclude, step)

    def _conclude(self, step: int) -> None:
        if self._desk.judge(step, self.failed()):
            self._follow_changes()

    def _follow_changes(self) -> None:
        self._faults.attempt("executor", self._upkeep.settle)
        self._announce()

    def _consider_snapshot(self, step: int) -> None:
        if "governor" not in self._faults.disabled:
            self._faults.attempt("snapshots", self._governor.consider_snapshot, step)
