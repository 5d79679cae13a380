"""Gradients of weights, and what the optimiser does with them, a block at a time.

A block is small enough that its weights, gradient and moments stay in the caches between the
operations that pass over them, and large enough that calling these takes no longer than doing them:
layers that few hosts have share a block, and wide ones are cut into several.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tamiyo.envs.training.layout import Layout
from tamiyo.envs.training.meter import StepMeter
from tamiyo.envs.training.optimizers import BETAS, OptimizerState, clip_adaptively
from tamiyo.envs.training.weights import Weights

__all__ = ["Updates"]

BLOCK = 2**17
"""Most weights of a block that has more than one row."""
TINY = 1e-37
"""Even its square root is nothing beside the epsilon of Adam that is added to it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Consecutive rows, or the biases of all of them, as views; k of them."""

    rows: slice
    values: Tensor
    """[k, in, out] or [k, out], and so are the gradient and the moments."""
    gradient: Tensor
    first: Tensor
    second: Tensor | None
    rate: Tensor
    """[k, 1, 1] or [k, 1], see `StepSizes`, and so is `keep`."""
    keep: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """What a level has of a block."""

    hosts: slice
    gradient: Tensor
    """[hosts, in, out], its part of the block's."""
    completed: _Block | None
    """The block, if this is the last piece that it waits for."""


class Updates:
    """Takes the steps of an optimiser.

    Args:
        layout: The hosts.
        weights: Their parameters.
        bias_gradient: [R + H, P], where gradients of biases are left.
        state: What their optimisers remember.
    """

    def __init__(
        self, layout: Layout, weights: Weights, bias_gradient: Tensor, state: OptimizerState
    ) -> None:
        self._state = state
        self._rate, self._keep = weights.bias.new_empty(2, layout.rows)
        largest = max(one.shape[1:].numel() for one in weights)
        self._room = weights.bias.new_empty(max(BLOCK, largest))
        self._biases = self._block("bias", slice(0, layout.rows), weights, bias_gradient)
        self._pieces: dict[int, Sequence[_Piece]] = {}
        inner = range(1, layout.levels)
        for name, levels in (("first", [0]), ("hidden", inner), ("last", [layout.levels])):
            own = {level: layout.rows_at(level) for level in levels}
            blocks = list(self._cut(name, weights, own.values()))
            for level, rows in own.items():
                self._pieces[level] = list(_overlaps(rows, blocks))

    def begin(
        self,
        rates: Tensor,
        momentum: Tensor,
        host_of: Tensor,
        clipped: tuple[Sequence[int], Tensor],
        meter: StepMeter | None,
    ) -> None:
        """Begin a step.

        Args:
            rates: [R + H], the learning rate of each row.
            momentum: [R + H], of SGD.
            host_of: [R + H], the host of each row.
            clipped: Which rows are, in their order, and [R + H], see `clip_adaptively`.
            meter: Is shown everything, if the step is to be measured.
        """
        sizes = self._state.begin_step(rates, momentum, host_of)
        self._rate.copy_(sizes.rate)
        self._keep.copy_(sizes.keep)
        self._clipped, self._meter = clipped, meter

    def take(self, level: int, inputs: Tensor, at_outputs: Tensor) -> None:
        """Go on with the weights of a level, the highest first; see `propagation.backward`."""
        for piece in self._pieces[level]:
            transposed = inputs[piece.hosts].mT
            torch.bmm(transposed, at_outputs[piece.hosts], out=piece.gradient)
            if piece.completed is not None:
                self._apply(piece.completed, axis=1)

    def finish(self) -> None:
        """End a step with the biases; each vector of them is clipped as one unit."""
        self._apply(self._biases, axis=-1)

    def _apply(self, block: _Block, axis: int) -> None:
        clipped, ratios = self._clipped
        own = clipped[
            bisect_left(clipped, block.rows.start) : bisect_left(clipped, block.rows.stop)
        ]
        if own:
            rows = torch.tensor(own, device=ratios.device)
            places = rows - block.rows.start
            clip_adaptively(block.values, block.gradient, places, ratios[rows], axis)
        if self._meter is not None:
            self._meter.before(block.rows, block.values, block.gradient)
        _update(block)
        if self._meter is not None:
            self._meter.after(block.rows, block.values)

    def _cut(self, name: str, weights: Weights, levels: Iterable[slice]) -> Iterator[_Block]:
        """Blocks of one of the tensors, the highest rows first."""
        rows = list(levels)
        if not rows:
            return
        start, stop = rows[0].start, rows[-1].stop
        shape = getattr(weights, name).shape[1:]
        most = max(1, BLOCK // shape.numel())
        while stop > start:
            low = max(start, stop - most)
            room = self._room[: (stop - low) * shape.numel()].view(-1, *shape)
            yield self._block(name, slice(low, stop), weights, room, start)
            stop = low

    def _block(
        self, name: str, rows: slice, weights: Weights, gradient: Tensor, start: int = 0
    ) -> _Block:
        """Views of some rows of a tensor whose first row is `start`."""
        own = slice(rows.start - start, rows.stop - start)
        values, second = getattr(weights, name)[own], self._state.second
        beside = (slice(None), *(None,) * (values.dim() - 1))
        return _Block(
            rows=rows,
            values=values,
            gradient=gradient,
            first=getattr(self._state.first, name)[own],
            second=None if second is None else getattr(second, name)[own],
            rate=self._rate[rows][beside],
            keep=self._keep[rows][beside],
        )


def _overlaps(level: slice, blocks: Sequence[_Block]) -> Iterator[_Piece]:
    """A level's pieces of blocks, the highest rows first."""
    for block in blocks:
        low, high = max(level.start, block.rows.start), min(level.stop, block.rows.stop)
        if low < high:
            yield _Piece(
                hosts=slice(low - level.start, high - level.start),
                gradient=block.gradient[low - block.rows.start : high - block.rows.start],
                completed=block if low == block.rows.start else None,
            )


def _update(block: _Block) -> None:
    """Move the values, in place; the gradient is spoiled."""
    first, gradient = block.first, block.gradient
    if block.second is None:
        first.mul_(block.keep).add_(gradient)
        block.values.addcmul_(first, block.rate)
        return
    first.lerp_(gradient, 1.0 - BETAS[0])
    block.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
    # Square roots of exact zeros, which units that are dead or do not exist have, take 30 times as
    # long. And with both factors in one operation, torch would go through elements one by one.
    denominator = torch.add(block.second, TINY, out=gradient).sqrt_()
    denominator.mul_(block.keep).add_(block.rate)
    block.values.addcdiv_(first, denominator)
