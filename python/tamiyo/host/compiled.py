"""Runs single training steps of compiled code uncompiled, so that hooks are called in them.

A compiled graph knows the hooks that were there when it was made: later ones are silently left out,
and each change of those that it knows has it made anew. Under the stance `force_eager` everything
runs as it was written, no graph is made or lost, and the next step is compiled as before.
"""

import sys
import time
from collections import deque
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from tamiyo.host.faults import Hook

__all__ = ["EagerSteps", "OptimizerHearing", "enough_memory", "is_compiled"]


def is_compiled(model: nn.Module) -> bool:
    """Whether the model or a part of it is compiled, by `torch.compile(m)` or `m.compile()`."""
    return any(
        isinstance(getattr(module, "_orig_mod", None), nn.Module)
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


SETTLED = 2
"""Compiled steps after which graphs are made and the memory that a step needs is known."""


class EagerSteps:
    """Turns compiling off for a step, and measures what that costs.

    Args:
        model: The model as the training loop calls it.
        optimizer: Its optimiser, whose step ends an uncompiled step.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        self.needed = is_compiled(model)
        """Whether hooks are called in uncompiled steps only."""
        self.allowed = True
        """Whether a step of this process alone may be uncompiled."""
        self.extra_time = 0.0
        """Seconds by which the latest uncompiled step was longer than a compiled one."""
        self._optimizer = optimizer
        self._handle: RemovableHandle | None = None
        self._stance: Any = None
        self._was_eager = False
        """Whether the present step ran uncompiled, at least to its end."""
        self._cuda = any(parameter.is_cuda for parameter in model.parameters())
        self._compiled_steps = 0
        """Steps since the latest uncompiled one."""
        self._last: float | None = None
        self._durations: deque[float] = deque(maxlen=16)
        """Of the latest compiled steps, in seconds."""
        self._used = self.needed

    @property
    def possible(self) -> bool:
        """Whether anything has been compiled in this process at all."""
        frames = sys.modules.get("torch._dynamo.eval_frame")
        backends = getattr(frames, "cached_backends", {})
        self._used = self._used or any(backend is not None for backend in backends.values())
        return self._used

    @property
    def active(self) -> bool:
        """Whether the present step runs uncompiled, or has."""
        return self._was_eager

    def begin(self) -> None:
        """Run everything uncompiled until `end`. Call it between two steps."""
        if self._stance is None:
            self._stance = torch.compiler.set_stance("force_eager")
            self._was_eager = True
            # Whoever goes on without ever telling of a step must not be left uncompiled.
            if self._optimizer is not None:
                self._handle = self._optimizer.register_step_post_hook(Hook(self._restore))

    def end(self) -> None:
        """Back to what was before."""
        self._restore()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def tick(self) -> None:
        """A step is done; call it before the next one is prepared."""
        self.end()
        now = time.perf_counter()
        self._compiled_steps = 0 if self._was_eager else self._compiled_steps + 1
        if self._last is not None and self._was_eager:
            usual = median(self._durations) if self._durations else now - self._last
            self.extra_time = max(0.0, now - self._last - usual)
        elif self._last is not None:
            self._durations.append(now - self._last)
        self._last = now
        self._was_eager = False

    @property
    def just_compiled(self) -> bool:
        """Whether the step that has ended last was not made to run uncompiled."""
        return self._compiled_steps > 0

    @property
    def settled(self) -> bool:
        """Whether hooks may be installed for a compiled step, to see whether they are called.

        In the first steps graphs are made, which would know the hooks and be lost with them.
        """
        return self.needed or not self.possible or self._compiled_steps >= SETTLED

    def record(self) -> bool:
        """Let the next step be recorded; false while it is not known whether that is safe."""
        if self.possible:
            if self._cuda and (self._compiled_steps < SETTLED or not self._fits()):
                return False
            self.begin()
        return True

    def sample(self) -> None:
        """Let the hooks of the step that begins now be called, as far as that is safe."""
        if self.needed and self.allowed and self._fits():
            self.begin()

    def learn(self, heard: bool) -> None:
        """Take note whether the hooks of the step that has ended were called."""
        if not heard and not self.just_compiled:
            self.allowed = False
        elif not heard and self.possible:
            self.needed = True

    def forget_graphs(self) -> None:
        """Have everything compiled anew, because the structure of the model has changed.

        Guards would notice most changes, but after eight of them torch falls back to eager for
        good.
        """
        if self.possible:
            torch.compiler.reset()

    def _restore(self, *_: Any) -> None:
        stance, self._stance = self._stance, None
        if stance is not None:
            stance.__exit__(None, None, None)

    def _fits(self) -> bool:
        """Whether an uncompiled step would surely find enough memory on the device."""
        if not self._cuda:
            return True
        free, _ = torch.cuda.mem_get_info()
        held, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        return enough_memory(torch.cuda.max_memory_allocated() - held, free + reserved - held)


class OptimizerHearing:
    """Finds out whether an optimiser calls its hooks: a compiled step does not call new ones.

    Args:
        optimizer: The optimiser.
        eager: Knows which steps may have been compiled.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, eager: EagerSteps) -> None:
        self._optimizer = optimizer
        self._eager = eager
        self._handle: RemovableHandle | None = None
        self._heard = False
        self._steps = 0
        self.known = False
        """Whether it was found out; `deaf` says what."""

    @property
    def deaf(self) -> bool:
        """Whether hooks are not called."""
        return self.known and not self._heard

    def listen(self) -> None:
        """A step is done."""
        if not self._eager.possible or not self._eager.just_compiled:
            return
        self._steps += 1
        if self._steps == SETTLED:
            self._handle = self._optimizer.register_step_post_hook(Hook(self._hear))
        elif self._heard or self._steps >= 2 * SETTLED:
            self.known = True
            self.stop()

    def stop(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _hear(self, *_: Any) -> None:
        self._heard = True


def enough_memory(peak: int, available: int) -> bool:
    """Whether a step that needs `peak` bytes compiled may be run uncompiled within `available`.

    Without fusion more activations are kept; twice as many is taken for the worst case.
    """
    return 2 * peak <= available
