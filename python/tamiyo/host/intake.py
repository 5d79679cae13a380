"""Takes each step's loss, and lets the rest of the host rest while nothing is remarkable."""

import torch

from tamiyo.host.governor import Governor
from tamiyo.host.readback import LossReader

__all__ = ["LossIntake"]

STRIDE = 31
"""Most steps between two looks at a run in which nothing is wrong. Odd, so that the looks, and with
them the measured steps, fall on all batches of a data set that is trained on in the same order."""
SECONDS = 0.1
"""Time after which one more look costs nothing to speak of."""


class LossIntake:
    """Losses on their way to the governor, which learns of them at the next look at the latest.

    Looking at everything after every step would cost small networks more than all measuring.

    Args:
        governor: Who watches the losses.
    """

    def __init__(self, governor: Governor) -> None:
        self._governor = governor
        self._reader = LossReader()
        self._unseen: list[tuple[int, float]] = []
        self._until = 0
        self._wake_at = 0.0

    def take(self, step: int, loss: torch.Tensor | float | None) -> None:
        """Read the loss of a step, or what has arrived of earlier ones; ends the rest if need be.

        Args:
            step: Optimiser steps done.
            loss: The step's loss, if it is known.
        """
        # A loss that cannot be read ends the rest too.
        until, self._until = self._until, 0
        arrived = self._reader.pop() if loss is None else self._reader.push(step, loss)
        self._unseen += arrived
        bound = self._governor.loss_bound
        if loss is not None and all(value <= bound for _, value in arrived):
            self._until = until

    def hand_over(self) -> None:
        """Let the governor see all that was taken; ends the rest."""
        self._until = 0
        unseen, self._unseen = self._unseen, []
        for step, value in unseen:
            self._governor.observe_loss(step, value)

    def rest(self, step: int, now: float, *every: int | None) -> None:
        """Nothing but losses is of interest for some steps.

        Args:
            step: Optimiser steps done.
            now: The clock in seconds.
            *every: Periods in steps at whose ends there is something to do all the same.
        """
        ends = [step + period - step % period for period in every if period]
        self._until = min(step + STRIDE, max(step + 1, self._governor.next_look), *ends)
        self._wake_at = now + SECONDS

    def resting(self, step: int, now: float) -> bool:
        """Whether nothing has to be done after this step; see `rest`."""
        return step < self._until and now < self._wake_at
