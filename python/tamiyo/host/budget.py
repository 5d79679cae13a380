"""Keeps own work under a share of the run's time, by the work's own measured cost."""

import time

__all__ = ["TimeBudget"]

HIDDEN_COST = 1.4
"""Work slows the loop by up to this factor more than its own clock shows (caches, allocator)."""


class TimeBudget:
    """A token bucket of seconds: the run's time fills it, work empties it.

    The first piece of work is free, because its cost is not known before it was done and is mostly
    that of starting up; it counts in `overhead` like all others.

    Args:
        share: Share of the run's time that the work may take, 0..1.
        now: Clock reading at which the run starts.
    """

    def __init__(self, share: float, now: float | None = None) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], got {share}")
        self._rate = share / HIDDEN_COST
        self._share = share
        self._started = self._filled = time.perf_counter() if now is None else now
        self._tokens = 0.0
        self._first = True
        self.cost = 0.0
        """Expected cost of one piece of work: a running mean of what it has cost, in seconds."""
        self.spent = 0.0
        """Seconds that all work has taken."""

    def allows(self, *, urgent: bool = False, now: float | None = None) -> bool:
        """Whether one more piece of work fits. Urgent work may be done three pieces in advance."""
        if self._share == 0:
            return False
        now = time.perf_counter() if now is None else now
        # Saving up is bounded, so that a long pause does not end in a burst.
        self._tokens = min(self._tokens + self._rate * (now - self._filled), 2 * self.cost)
        self._filled = now
        needed = -3 * self.cost if urgent else self.cost
        return self._tokens >= needed

    def spend(self, seconds: float) -> None:
        """One piece of work was done."""
        self.spent += seconds
        if self._first:
            self._first = False
            return
        self._tokens -= seconds
        self.cost = 0.75 * self.cost + 0.25 * seconds if self.cost else seconds

    def charge(self, seconds: float) -> None:
        """Account for work that is not a piece of its own (a failed or aborted one)."""
        self._tokens -= seconds
        self.spent += seconds

    def overhead(self, now: float | None = None) -> float:
        """Share of the run's time that the work has taken so far, by its own clock."""
        now = time.perf_counter() if now is None else now
        elapsed = now - self._started
        return self.spent / elapsed if elapsed > 0 else float("nan")
