"""Reads small tensors back from the device without making the training loop wait for it."""

from collections import deque

import torch

__all__ = ["LossReader", "Readback"]


class Readback:
    """A tensor on its way to the host: at once from the CPU, one step later from a GPU."""

    def __init__(self, tensor: torch.Tensor) -> None:
        tensor = tensor.detach()
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._values.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))
            # The copy reads this memory later than the caller may have dropped it.
            tensor.record_stream(torch.cuda.current_stream(tensor.device))
        else:
            self._values = tensor

    @property
    def ready(self) -> bool:
        """Whether reading would not wait."""
        return self._event is None or bool(self._event.query())

    def values(self) -> torch.Tensor:
        """The tensor on the host; call it when `ready`."""
        return self._values


class LossReader:
    """The losses of past steps, in order, each as soon as it is there."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Readback]] = deque()

    def push(self, step: int, loss: torch.Tensor | float) -> list[tuple[int, float]]:
        """Take the loss of a step; returns the `(step, loss)` pairs that can be read now."""
        if not isinstance(loss, torch.Tensor):
            return [*self.pop(), (step, float(loss))]
        if not loss.is_cuda:
            loss = loss.detach()
            return [(step, float(loss if loss.dim() == 0 else loss.mean()))]
        self._waiting.append((step, Readback(loss.detach().float().mean())))
        return self.pop()

    def pop(self) -> list[tuple[int, float]]:
        """Those that have arrived."""
        arrived = []
        while self._waiting and self._waiting[0][1].ready:
            step, readback = self._waiting.popleft()
            arrived.append((step, float(readback.values())))
        return arrived
