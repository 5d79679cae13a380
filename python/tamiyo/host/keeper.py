"""Keeps the last known good snapshot: one whose following steps have shown that it was healthy."""

import time

from tamiyo.host.budget import TimeBudget
from tamiyo.host.snapshot import RunSnapshot, state_bytes
from tamiyo.host.training import TrainingRun

__all__ = ["SnapshotKeeper"]


class SnapshotKeeper:
    """Takes candidates and promotes those that prove themselves.

    The loss of a step was computed before that step's update, so no state is known to be healthy
    when it is captured. A candidate becomes good once `proof` healthy steps have followed it, and
    is dropped at the first sign of trouble.

    Args:
        run: What to capture.
        share: Share of the run's time that capturing may take.
        memory: Bytes of host memory for all snapshots together.
        proof: Healthy steps that a candidate must be followed by.
    """

    def __init__(self, run: TrainingRun, *, share: float, memory: int, proof: int = 50) -> None:
        self._run = run
        self._memory = memory
        self._proof = proof
        self.budget = TimeBudget(share)
        self.good: RunSnapshot | None = None
        """The last known good snapshot."""
        self._candidate: RunSnapshot | None = None
        self._checks_before = 0
        self._spare: RunSnapshot | None = None
        """A snapshot that is no longer wanted, kept for its buffers."""

    def capture(self, step: int) -> RunSnapshot | None:
        """The present state, to return to after an adaptation; `None` without room for it.

        The unproven candidate gives way.
        """
        self.drop_candidate()
        return self._take(step) if self._has_room() else None

    def consider(self, step: int, *, checks: int) -> None:
        """Go on after a step up to which everything that was checked is well.

        Args:
            step: Optimiser steps done.
            checks: Losses that were read and found healthy, counted over the whole run.
        """
        if self._candidate is not None:
            if checks - self._checks_before >= self._proof:
                self._spare, self.good, self._candidate = self.good, self._candidate, None
        elif self.budget.allows():
            started = time.perf_counter()
            # To find that there is no room takes time too, and must not be tried at every step.
            if self._has_room():
                self._candidate = self._take(step)
                self._checks_before = checks
            self.budget.spend(time.perf_counter() - started)

    def drop_candidate(self) -> None:
        """Forget the unproven candidate; its buffers are used again."""
        if self._candidate is not None:
            self._spare, self._candidate = self._candidate, None

    def _has_room(self) -> bool:
        """Whether one more fits beside the good one; the spare one's buffers become part of it."""
        held = self.good.nbytes if self.good is not None else 0
        return held + state_bytes(self._run) <= self._memory

    def _take(self, step: int) -> RunSnapshot:
        spare, self._spare = self._spare, None
        return RunSnapshot(self._run, step, reuse=spare)
