"""Records what reaches a growth site and what gradient comes back, during ordinary training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tamiyo.host.faults import Hook
from tamiyo.host.growth.site import GrowthSite, Pass

__all__ = ["GradientRecording"]

MOST_ROWS = 4096
"""Positions of samples that are kept of all passes; of larger batches only some samples are. It
bounds the time that is needed to make something of them."""
MOST_PASSES = 64

Shield = Callable[[Callable[..., None]], Callable[..., Any]]


@dataclass(slots=True)
class _Open:
    """A forward pass whose gradients have not all arrived yet."""

    batch: int
    samples: torch.Tensor
    inputs: torch.Tensor
    gradients: list[torch.Tensor | None]


class GradientRecording:
    """Takes copies at a site while the caller's own forward and backward passes run.

    Use it as a context manager around `loss.backward()` on an example batch, or let it listen to
    some steps of a live run. Nothing that is computed changes.

    Args:
        site: Where to listen.
        rows: Positions of samples (pixels, tokens) that are kept of each pass.
        shield: Wraps each hook; on a live run it has to keep errors out of the training loop.
    """

    def __init__(self, site: GrowthSite, rows: int = MOST_ROWS, shield: Shield = Hook) -> None:
        self._site = site
        self._rows = rows
        self._shield = shield
        self.half = False
        """Whether the layer computes in half precision, maybe under autocast."""
        self._open: _Open | None = None
        self._passes: list[_Open] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def attach(self) -> None:
        """Listen from now on."""
        self._handles.append(
            self._site.layer.register_forward_hook(self._shield(self._layer_called))
        )
        for number, outlet in enumerate(self._site.outlets):
            called = self._shield(self._reader_called(number))
            self._handles.append(outlet.reader.register_forward_hook(called))

    def detach(self) -> None:
        """Stop listening; what was recorded stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._open = None

    @property
    def count(self) -> int:
        """Passes that are complete."""
        return sum(None not in open_.gradients for open_ in self._passes)

    def passes(self) -> Sequence[Pass]:
        """The complete passes whose values are all finite, in single precision or better.

        Those of equal shapes are one. Gradients are scaled so that their norm over everything is 1:
        only directions matter, and a gradient scaler may have multiplied them with anything.
        """
        found = []
        for recorded in self._passes:
            gradients = [gradient for gradient in recorded.gradients if gradient is not None]
            tensors = [recorded.inputs, *gradients]
            complete = len(gradients) == len(recorded.gradients)
            if complete and all(torch.isfinite(tensor).all() for tensor in tensors):
                found.append(Pass(recorded.inputs, gradients))
        norms = [gradient.norm() for recorded in found for gradient in recorded.gradients]
        total = float(torch.stack(norms).norm()) if norms else 0.0
        if total == 0.0:
            return []
        return [
            Pass(merged.inputs, [gradient / total for gradient in merged.gradients])
            for merged in _merged(found)
        ]

    def _layer_called(self, module: nn.Module, args: Any, output: Any) -> None:
        self._open = None
        inputs = args[0] if args else None
        if not (isinstance(inputs, torch.Tensor) and module.training and torch.is_grad_enabled()):
            return
        dimensions = module.get_parameter("weight").dim()
        batched = inputs.dim() >= 2 if dimensions == 2 else inputs.dim() == dimensions
        if not batched or not inputs.numel() or len(self._passes) >= MOST_PASSES:
            return
        self.half = output.dtype is torch.float16
        channels = inputs.shape[-1 if dimensions == 2 else 1]
        samples = _some(inputs, self._rows * channels)
        none: list[torch.Tensor | None] = [None] * len(self._site.outlets)
        self._open = _Open(len(inputs), samples, _copy(inputs, samples), none)
        self._passes.append(self._open)

    def _reader_called(self, number: int) -> Callable[..., None]:
        def called(_module: nn.Module, _args: Any, output: Any) -> None:
            recorded = self._open
            if recorded is None or not isinstance(output, torch.Tensor):
                return
            if len(output) == recorded.batch and output.requires_grad:

                def arrived(gradient: torch.Tensor) -> None:
                    recorded.gradients[number] = _copy(gradient, recorded.samples)

                output.register_hook(self._shield(arrived))

        return called


def _merged(passes: Sequence[Pass]) -> Iterator[Pass]:
    """Passes that differ in their samples only as one, which is faster to work with."""
    alike: dict[tuple[torch.Size, ...], list[Pass]] = {}
    for one in passes:
        shapes = tuple(tensor.shape[1:] for tensor in (one.inputs, *one.gradients))
        alike.setdefault(shapes, []).append(one)
    for group in alike.values():
        gradients = [torch.cat(parts) for parts in zip(*(p.gradients for p in group), strict=True)]
        yield Pass(torch.cat([one.inputs for one in group]), gradients)


def _some(tensor: torch.Tensor, elements: int) -> torch.Tensor:
    """Indices of samples spread over the batch, with at most so many elements, but at least one."""
    batch = len(tensor)
    kept = max(1, min(batch, elements * batch // tensor.numel()))
    return torch.arange(kept, device=tensor.device) * batch // kept


def _copy(tensor: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    chosen = tensor.detach()[samples]
    return chosen if chosen.dtype == torch.float64 else chosen.float()
