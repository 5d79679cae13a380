"""This process's place among those that train the same weights: alone, leading, following."""

import logging

from torch.nn.parallel import DistributedDataParallel

from tamiyo.host.checksums import structure_checksum
from tamiyo.host.distributed import (
    Reducer,
    distributed_run,
    rank_of,
    unfit,
    wrapper_around,
    wrapper_of,
)
from tamiyo.host.executor import Executor
from tamiyo.host.follower import Follower, FollowingKeeper
from tamiyo.host.keeper import SnapshotKeeper
from tamiyo.host.leader import Leader, LeadingKeeper, SharedExecutor
from tamiyo.host.rendezvous import Rendezvous, store_of
from tamiyo.host.training import TrainingRun, unwrap
from tamiyo.host.upkeep import Upkeep

__all__ = ["Ranks"]

logger = logging.getLogger("tamiyo.host")


class Ranks:
    """Knows whether a run has other processes, and takes its part among them.

    Args:
        run: The run.
        upkeep: Follows changes of structure.
    """

    def __init__(self, run: TrainingRun, upkeep: Upkeep) -> None:
        self._run = run
        self._upkeep = upkeep
        self.rank = rank_of(run)
        upkeep.reducer = _reducer(wrapper_of(run.model))
        self.joined = not distributed_run()
        """Whether it is settled what this process does."""
        self.leader: Leader | None = None
        self._follower: Follower | None = None
        self._rendezvous: Rendezvous | None = None

    @property
    def others(self) -> bool:
        """Whether other processes train the same weights."""
        return self._run.other_ranks > 0

    @property
    def follows(self) -> bool:
        """Whether another process speaks for this one."""
        return self.rank > 0

    def keeper(self, *, share: float, memory: int) -> SnapshotKeeper:
        """What keeps this process's snapshots."""
        kind = FollowingKeeper if self.follows else LeadingKeeper
        return kind(self._run, share=share, memory=memory)

    def find_wrapper(self) -> None:
        """Look for the data-parallel wrapper before the first step has shown it."""
        if self._upkeep.reducer is None and distributed_run():
            self._upkeep.reducer = _reducer(wrapper_around(unwrap(self._run.model)))

    def join(
        self,
        executor: Executor,
        wrapper: DistributedDataParallel | None,
        *,
        wants_to_act: bool,
    ) -> Executor | None:
        """Take part in what the ranks do together.

        Returns:
            What the decisions of this process are to be applied with; `None` if nothing may be.
        """
        self.joined = True
        context, governor, actions = executor.context, executor.governor, executor.actions
        self._upkeep.reducer = _reducer(wrapper)
        if not self._run.other_ranks:
            return SharedExecutor(context, governor, actions, self._upkeep, None)
        if not wants_to_act:
            return None
        objection = unfit(self._run, wrapper)
        if wrapper is None or objection:
            if not self.follows:
                logger.warning("tamiyo: the model is only observed: %s", objection)
            return None
        self._rendezvous = rendezvous = Rendezvous(
            store_of(wrapper.process_group),
            self.rank,
            self._run.other_ranks + 1,
            subject=structure_checksum(context.layers, self._run.optimizer),
        )
        if isinstance(governor.keeper, FollowingKeeper):
            self._follower = Follower(rendezvous, executor, governor.keeper, self._upkeep)
            rendezvous.present()
            return executor
        self.leader = Leader(rendezvous)
        if isinstance(governor.keeper, LeadingKeeper):
            governor.keeper.leader = self.leader
        return SharedExecutor(context, governor, actions, self._upkeep, self.leader)

    def leave(self) -> None:
        """Take part no more."""
        if self._rendezvous is not None:
            self._rendezvous.leave()

    def follow(self, step: int, failed: str) -> None:
        """After `step` steps: do what the leading rank wants done.

        Args:
            step: Optimiser steps done.
            failed: Parts of this process's host that have failed.
        """
        if self._follower is not None:
            if failed:
                self._follower.complain(failed)
            self._follower.follow(step)


def _reducer(wrapper: DistributedDataParallel | None) -> Reducer | None:
    return None if wrapper is None else Reducer(wrapper)
