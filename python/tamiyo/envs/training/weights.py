"""The parameters of all hosts of a cohort in four stacked tensors, padded with zeros.

Units that do not exist have weights of zero on both sides, so that they pass nothing on and get no
gradient: padding costs time, but needs no mask.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tamiyo.envs.training.data import CLASSES, FEATURES
from tamiyo.envs.training.gathering import (
    Gathering,
    every_row,
    first_rows,
    inner_rows,
    last_rows,
)
from tamiyo.envs.training.hosts import initial_layers
from tamiyo.envs.training.layout import Layout

__all__ = ["Weights", "initial_weights"]


@dataclass(slots=True)
class Weights:
    """Weights and biases, or anything of their shape (gradients, moments).

    H hosts, R hidden rows (see `Layout`), width P; weights are [in, out].
    """

    first: Tensor
    """[H, 64, P]: first hidden layers."""
    hidden: Tensor
    """[R - H, P, P]: the other hidden layers."""
    last: Tensor
    """[H, P, 10]."""
    bias: Tensor
    """[R + H, P] of all rows; last layers use the first 10 places."""

    @classmethod
    def zeros(cls, layout: Layout, width: int, dtype: torch.dtype) -> "Weights":
        """All zero, for hosts of at most this width."""
        hosts, rows = layout.hosts, layout.hidden_rows
        return cls(
            first=torch.zeros(hosts, FEATURES, width, dtype=dtype),
            hidden=torch.zeros(rows - hosts, width, width, dtype=dtype),
            last=torch.zeros(hosts, width, CLASSES, dtype=dtype),
            bias=torch.zeros(rows + hosts, width, dtype=dtype),
        )

    @classmethod
    def gathered(cls, gathering: Gathering, pieces: Sequence["Weights"]) -> "Weights":
        """Copies of those of some hosts."""
        spans = (first_rows, inner_rows, last_rows, every_row)
        tensors = zip(*pieces, strict=True)
        return cls(*(gathering.take(*pair) for pair in zip(tensors, spans, strict=True)))

    def __iter__(self) -> Iterator[Tensor]:
        return (getattr(self, field.name) for field in fields(self))

    @property
    def hosts(self) -> int:
        """H."""
        return len(self.first)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Weights":
        """The same structure of other tensors."""
        return Weights(*map(function, self))

    def level(self, layout: Layout, level: int) -> Tensor:
        """[n, in, out]: the weights of the rows at a level (`Layout.rows_at`), a view."""
        if level == 0:
            return self.first
        if level == layout.levels:
            return self.last
        rows = layout.rows_at(level)
        return self.hidden[rows.start - self.hosts : rows.stop - self.hosts]

    def row(self, row: int) -> Tensor:
        """[in, out]: the weights of one row, padding included, a view."""
        after = row - self.hosts
        if after < 0:
            return self.first[row]
        return (
            self.hidden[after] if after < len(self.hidden) else self.last[after - len(self.hidden)]
        )

    def parts(self, rows: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """`rows` [R + H] of anything, cut to fit: pairs of a tensor and its share, broadcastable.

        A value per row becomes [n, 1, 1] beside weights and [n, 1] beside biases.
        """
        hosts, end = self.hosts, len(self.bias) - self.hosts
        shares = (rows[:hosts], rows[hosts:end], rows[end:])
        weights = (self.first, self.hidden, self.last)
        pairs = [(w, share[:, None, None]) for w, share in zip(weights, shares, strict=True)]
        return [*pairs, (self.bias, rows[:, None])]

    def copy_hosts(self, layout: Layout, source: "Weights", hosts: Tensor) -> None:
        """Overwrite the parameters of some hosts, a mask [H]."""
        rows = hosts[torch.as_tensor(layout.host_of, device=hosts.device)]
        for (mine, chosen), theirs in zip(self.parts(rows), source, strict=True):
            index = chosen.flatten().nonzero()[:, 0]
            if len(index) == len(mine):
                mine.copy_(theirs)
            else:
                mine[index] = theirs[index]


def initial_weights(
    layout: Layout, width: int, device: torch.device, dtype: torch.dtype
) -> tuple[Weights, Tensor]:
    """First weights of every host, and its units.

    Returns:
        The weights, and [R, P], bool: which units of each hidden row exist.
    """
    weights = Weights.zeros(layout, width, dtype)
    units = torch.zeros(layout.hidden_rows, width, dtype=torch.bool)
    for host, spec in enumerate(layout.specs):
        for layer, (weight, bias) in enumerate(initial_layers(spec)):
            row = int(layout.row_of[host, layer])
            inputs, outputs = weight.shape
            weights.row(row)[:inputs, :outputs] = torch.as_tensor(weight, dtype=dtype)
            weights.bias[row, :outputs] = torch.as_tensor(bias, dtype=dtype)
            if row < layout.hidden_rows:
                units[row, :outputs] = True
    return weights.map(lambda tensor: tensor.to(device)), units.to(device)
