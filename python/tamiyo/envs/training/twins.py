"""What the hosts would be had they been left alone, trained only where it makes a difference.

A host to which nothing was done is its own twin. Right before its first adaptation it is copied,
weights, moments, rates and all, and the copy goes on in a program of its own. There it does to the
last bit what a twin trained from the beginning would have done, as far as a batched product gives
each matrix the same result whatever else is in the batch: so it is on CPUs with MKL, while on GPUs
the kernel may depend on the size of the batch, and with it the rounding.
"""

import numpy as np
import numpy.typing as npt

from tamiyo.envs.training.course import Course, Quality

__all__ = ["Twins"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Twins:
    """Twins of the hosts of a course.

    Args:
        course: The hosts.
    """

    def __init__(self, course: Course) -> None:
        self._hosts = course
        self._forked: Course | None = None
        self.members: Ints = np.zeros(0, np.int64)
        """Hosts that have a twin of their own, in their order."""

    def fork(self, hosts: Ints) -> None:
        """Copy hosts that are about to be adapted for the first time.

        Args:
            hosts: [n], each at most once in an episode.
        """
        if not len(hosts):
            return
        members, pieces = hosts, [(self._hosts, hosts)]
        if self._forked is not None:
            members = np.concatenate([hosts, self.members])
            pieces.append((self._forked, np.arange(len(self.members))))
        # Hosts are numbered deepest first.
        order = np.argsort(members)
        self._forked, self.members = Course.gathered(pieces, order), members[order]

    def train(self, steps: int, losses: Floats) -> Floats:
        """Let the copies go on.

        Args:
            steps: Optimiser steps that the hosts have done meanwhile.
            losses: [H, steps], those of the hosts.

        Returns:
            Those of all twins.
        """
        if self._forked is None:
            return losses
        return self._merged(losses, self._forked.train(steps))

    def quality(self, present: Quality) -> Quality:
        """Quality of all twins.

        Args:
            present: That of the hosts.
        """
        if self._forked is None:
            return present
        own = self._forked.quality()
        return Quality(
            self._merged(present.loss, own.loss), self._merged(present.accuracy, own.accuracy)
        )

    def _merged(self, present: Floats, own: Floats) -> Floats:
        merged = present.copy()
        merged[self.members] = own
        return merged
