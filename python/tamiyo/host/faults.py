"""Tamiyo's own errors: counted, logged once, and never let into the training loop."""

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

__all__ = ["Faults", "Hook"]

logger = logging.getLogger("tamiyo.host")


class Hook:
    """A hook for the live model alone.

    In a copy or a pickle of the model it becomes a function of the standard library that does
    nothing, so that averaged copies are not measured and saved ones load without Tamiyo. It stays
    out of compiled graphs and of CUDA graphs, which it could not be taken out of again.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        """Run the function, unless a graph is being made of the present operations."""
        if not torch.compiler.is_compiling() and not _is_capturing():
            self._function(*args)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Callable[..., None]:
        return nullcontext().__exit__

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")


class Faults:
    """Keeps a failing part of the host from hurting the run: the part is switched off instead."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Errors by part."""
        self.disabled: set[str] = set()
        """Parts that failed and no longer run."""

    def note(self, part: str, error: Exception, *, disable: bool = True) -> None:
        """Count an error of a part; the first one of each part is logged with its traceback."""
        if not self.counts[part]:
            consequence = "it is switched off" if disable else "it goes on"
            logger.warning("tamiyo: %s failed, %s", part, consequence, exc_info=error)
        self.counts[part] += 1
        if disable:
            self.disabled.add(part)

    def attempt(self, part: str, function: Callable[..., object], *args: Any) -> None:
        """Call a function of a part, unless the part has failed; its errors end here."""
        if part not in self.disabled:
            try:
                function(*args)
            except Exception as error:
                self.note(part, error)

    def shield(self, part: str, function: Callable[..., Any]) -> Hook:
        """The function as a hook that returns nothing, never raises, and stops after an error."""
        return Hook(lambda *args: self.attempt(part, function, *args))


def _is_capturing() -> bool:
    # Asking before CUDA is in use would start it.
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
