"""The last known good state of every host, for `restore`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tamiyo.envs.training.cohort import Cohort
from tamiyo.envs.training.optimizers import OptimizerState
from tamiyo.envs.training.weights import Weights

__all__ = ["SnapshotKeeper"]


@dataclass(slots=True)
class _Copies:
    weights: Weights
    optimizer: OptimizerState
    learning_rate: Tensor

    @classmethod
    def of(cls, cohort: Cohort) -> "_Copies":
        return cls(
            cohort.weights.map(torch.clone),
            cohort.optimizer.clone(),
            cohort.learning_rate.clone(),
        )


class SnapshotKeeper:
    """A candidate becomes good once the following interval was healthy, as in the live host.

    Args:
        cohort: The hosts.
        every: Decisions between candidates.
    """

    def __init__(self, cohort: Cohort, every: int = 2) -> None:
        self.every = every
        self.good = torch.zeros(cohort.hosts, dtype=torch.bool, device=cohort.device)
        """[H]: which hosts have a good snapshot."""
        self._cohort = cohort
        self._pending = torch.zeros_like(self.good)
        self._good, self._candidate = _Copies.of(cohort), _Copies.of(cohort)
        self._seen = 0

    def observe(self, healthy: Tensor) -> None:
        """Go on after an interval; `healthy` [H] says where nothing was wrong in it."""
        self._pending &= healthy
        if self._seen % self.every == 0:
            self._copy(self._candidate, self._good, self._pending)
            self.good |= self._pending
            self._pending = healthy.clone()
            self._take(self._pending)
        self._seen += 1

    def forget(self, hosts: Tensor) -> None:
        """Hosts [H] whose structure has changed: nothing fits them any more."""
        self.good &= ~hosts
        self._pending &= ~hosts

    def restore(self, hosts: Tensor, rate_factor: float) -> None:
        """Put hosts [H] that have a good snapshot back to it, at a lower learning rate."""
        cohort, layout = self._cohort, self._cohort.layout
        cohort.weights.copy_hosts(layout, self._good.weights, hosts)
        cohort.optimizer.copy_hosts(layout, self._good.optimizer, hosts)
        rate, rows = self._good.learning_rate * rate_factor, hosts[cohort.host_of]
        cohort.learning_rate = torch.where(rows, rate, cohort.learning_rate)
        # Restoring the same state again must not undo the lower rate.
        self._good.learning_rate = torch.where(rows, rate, self._good.learning_rate)
        self._pending &= ~hosts

    def _take(self, hosts: Tensor) -> None:
        cohort = self._cohort
        present = _Copies(cohort.weights, cohort.optimizer, cohort.learning_rate)
        self._copy(present, self._candidate, hosts)

    def _copy(self, source: _Copies, goal: _Copies, hosts: Tensor) -> None:
        layout = self._cohort.layout
        goal.weights.copy_hosts(layout, source.weights, hosts)
        goal.optimizer.copy_hosts(layout, source.optimizer, hosts)
        rows = hosts[self._cohort.host_of]
        goal.learning_rate = torch.where(rows, source.learning_rate, goal.learning_rate)
