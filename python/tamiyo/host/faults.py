"""Tamiyo's own errors: counted, logged once, and never let into the training loop."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Faults"]

logger = logging.getLogger("tamiyo.host")


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

    @contextmanager
    def guard(self, part: str) -> Iterator[None]:
        """Run a block of a part; an error switches the part off and goes no further."""
        try:
            yield
        except Exception as error:
            self.note(part, error)

    def shield(self, part: str, function: Callable[..., Any]) -> Callable[..., None]:
        """The function as a hook that returns nothing, never raises, and stops after an error."""

        def hook(*args: Any, **kwargs: Any) -> None:
            if part not in self.disabled:
                try:
                    function(*args, **kwargs)
                except Exception as error:
                    self.note(part, error)

        return hook
