"""Where the layers of many hosts lie in a few stacked tensors.

Hosts are sorted by depth, deepest first, so that those which have a hidden layer at some level are
the first ones, and nothing is computed for layers that do not exist. A *row* is one linear layer of
one host: first all hidden layers level by level, then the last layers of all hosts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tamiyo.envs.training.hosts import HostSpec

__all__ = ["Layout"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layout:
    """Rows of the hosts of a cohort.

    Args:
        specs: The hosts, deepest first.

    Raises:
        ValueError: no host, or they are not sorted.
    """

    specs: Sequence[HostSpec]

    def __post_init__(self) -> None:
        depths = [spec.hidden for spec in self.specs]
        if not depths or depths != sorted(depths, reverse=True):
            raise ValueError("a cohort is made of hosts that are sorted by depth, deepest first")

    @property
    def hosts(self) -> int:
        """H."""
        return len(self.specs)

    @cached_property
    def hidden(self) -> Ints:
        """[H]: hidden layers of each host."""
        return np.array([spec.hidden for spec in self.specs])

    @cached_property
    def counts(self) -> Sequence[int]:
        """For each level, how many hosts have a hidden layer there."""
        return [int((self.hidden > level).sum()) for level in range(int(self.hidden[0]))]

    @cached_property
    def starts(self) -> Sequence[int]:
        """For each level its first row."""
        return [0, *np.cumsum(self.counts).tolist()]

    @property
    def levels(self) -> int:
        """Hidden layers of the deepest host."""
        return len(self.counts)

    @property
    def all_levels(self) -> range:
        """The levels, and one more for the last layers."""
        return range(self.levels + 1)

    @property
    def hidden_rows(self) -> int:
        """R, rows of hidden layers; the last layers follow in R .. R + H."""
        return self.starts[-1]

    @property
    def rows(self) -> int:
        """R + H."""
        return self.hidden_rows + self.hosts

    @cached_property
    def row_of(self) -> Ints:
        """[H, levels + 1]: the row of each linear layer of each host, -1 where there is none."""
        rows = np.full((self.hosts, self.levels + 1), -1)
        for level, count in enumerate(self.counts):
            rows[:count, level] = self.starts[level] + np.arange(count)
        rows[np.arange(self.hosts), self.hidden] = self.hidden_rows + np.arange(self.hosts)
        return rows

    @cached_property
    def host_of(self) -> Ints:
        """[R + H]: the host of each row."""
        return np.concatenate([*(np.arange(count) for count in self.counts), np.arange(self.hosts)])

    @cached_property
    def layer_of(self) -> Ints:
        """[R + H]: the number of each row's layer within its host."""
        levels = [np.full(count, level) for level, count in enumerate(self.counts)]
        return np.concatenate([*levels, self.hidden])

    def rows_at(self, level: int) -> slice:
        """Rows of the hidden layers at a level; past the last one, those of the last layers."""
        if level == self.levels:
            return slice(self.hidden_rows, self.rows)
        return slice(self.starts[level], self.starts[level + 1])

    def ending_at(self, level: int) -> slice:
        """Hosts whose last hidden layer lies at a level."""
        following = self.counts[level + 1] if level + 1 < self.levels else 0
        return slice(following, self.counts[level])
