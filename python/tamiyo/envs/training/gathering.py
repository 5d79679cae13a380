"""Copies of chosen hosts, put side by side in tensors of their own."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tamiyo.envs.training.layout import Layout

__all__ = ["Gathering", "every_row", "first_rows", "hidden_rows", "inner_rows", "last_rows"]

Ints = npt.NDArray[np.int64]
Span = Callable[[Layout], slice]
"""Which rows of a cohort a tensor has values for."""


def every_row(layout: Layout) -> slice:
    """All of them."""
    return slice(0, layout.rows)


def hidden_rows(layout: Layout) -> slice:
    """Those of hidden layers."""
    return slice(0, layout.hidden_rows)


def first_rows(layout: Layout) -> slice:
    """Those of first hidden layers, which are numbered as the hosts are."""
    return slice(0, layout.hosts)


def inner_rows(layout: Layout) -> slice:
    """Those of the other hidden layers."""
    return slice(layout.hosts, layout.hidden_rows)


def last_rows(layout: Layout) -> slice:
    """Those of last layers."""
    return slice(layout.hidden_rows, layout.rows)


class Gathering:
    """Where the rows of some hosts come from.

    Args:
        layouts: Of the cohorts that hosts are taken from.
        hosts: Which hosts of each of them.
        order: Puts the hosts of all cohorts, one after another, deepest first.
        device: Where the tensors are.
    """

    def __init__(
        self,
        layouts: Sequence[Layout],
        hosts: Sequence[Ints],
        order: Ints,
        device: torch.device,
    ) -> None:
        owner = np.repeat(np.arange(len(hosts)), [len(some) for some in hosts])[order]
        host = np.concatenate(hosts)[order]
        pairs = zip(owner, host, strict=True)
        self.layout = Layout([layouts[one].specs[number] for one, number in pairs])
        """Of the hosts that were chosen."""
        self._layouts, self._device = layouts, device
        self._goals: list[Ints] = []
        self._sources: list[Ints] = []
        whose, layer = owner[self.layout.host_of], self.layout.layer_of
        for number, layout in enumerate(layouts):
            goal = np.flatnonzero(whose == number)
            self._goals.append(goal)
            self._sources.append(layout.row_of[host[self.layout.host_of[goal]], layer[goal]])

    def take(self, tensors: Sequence[Tensor], span: Span) -> Tensor:
        """The values of the chosen hosts.

        Args:
            tensors: One of each cohort, with a value for every row of the span.
            span: Which rows these are.
        """
        rows = span(self.layout)
        out = tensors[0].new_empty(rows.stop - rows.start, *tensors[0].shape[1:])
        for number, tensor in enumerate(tensors):
            goal, source = self._goals[number], self._sources[number]
            inside = (goal >= rows.start) & (goal < rows.stop)
            theirs = source[inside] - span(self._layouts[number]).start
            out[self._index(goal[inside] - rows.start)] = tensor[self._index(theirs)]
        return out

    def _index(self, rows: Ints) -> Tensor:
        return torch.as_tensor(rows, device=self._device)
