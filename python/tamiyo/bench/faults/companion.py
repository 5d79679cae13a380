"""Who is beside a run: anything that watches its loop and may change model or optimiser."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tamiyo.bench.faults.fault import Told
from tamiyo.bench.faults.registry import Registry
from tamiyo.bench.faults.rows import FaultAct

__all__ = ["NOBODY", "POLICIES", "Companion", "Oracle", "Policy", "Subject"]

NOBODY = "no-op"


@dataclass(slots=True)
class Subject:
    """A run as its companion sees it: nothing in it says which fault it has, if any.

    Attributes:
        model: What is trained.
        optimizer: Its optimiser.
        steps: Optimiser steps of the whole run.
        name: Of the run; says nothing.
        step: Optimiser steps done.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int
    name: str
    step: int = 0


class Companion:
    """Does nothing, so that it is also the policy to compare with; others override what they need.

    One companion is beside one run.
    """

    version = "1"
    passes = 0
    """Forward and backward passes that it has made."""

    def attach(self, subject: Subject) -> None:
        """Called once, before the first step."""

    def before_step(self) -> None:
        """Called when the gradients of a step are there, before the optimiser uses them."""

    def after_step(self, loss: Tensor) -> None:
        """Called after the optimiser's step, with its training loss."""

    def evaluated(self, loss: float, accuracy: float) -> None:
        """Called after an evaluation on held-out data."""

    def acts(self) -> Sequence[FaultAct]:
        """What it has done, in order."""
        return ()

    def close(self) -> None:
        """Called at the end, also where the run has failed."""


class Oracle(Companion):
    """A companion that is told what is wrong."""

    def tell(self, told: Told) -> None:
        """Called once, before `attach`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Policy:
    """A kind of companion.

    Attributes:
        name: As on the command line.
        make: A fresh one, without memory of any run.
    """

    name: str
    make: Callable[[], Companion]


POLICIES: Registry[Policy] = Registry("policy")
POLICIES.add(Policy(NOBODY, Companion))
